"""Values and identity of a network's module."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import joblib
import torch


def load_values(module, parameters, buffers=None):
    """Point a module's parameters and buffers at other values. See :meth:`Network.load`."""
    own = dict(module.named_parameters())
    _check_same(own, parameters, "parameters")
    swaps = [(own[name], parameters[name]) for name in own]
    if buffers is not None:
        own = dict(module.named_buffers())
        _check_same(own, buffers, "buffers")
        swaps += [(own[name], buffers[name]) for name in own]
    for target, value in swaps:
        target.data = value.detach().to(device=target.device, dtype=target.dtype)


def signature_of(net, loss, dtype):
    """See :meth:`Network.signature`."""
    criterion = loss.criterion
    settings = {k: v for k, v in vars(criterion).items() if not k.startswith("_")} if criterion is not None else {}
    tensors = dict(criterion.named_buffers()) if isinstance(criterion, torch.nn.Module) else {}
    return joblib.hash(
        (
            repr(net.module_),
            _source(type(net.module_)),
            str(dtype),
            _source(type(net).get_loss),
            _source(type(criterion)),
            {k: str(v) for k, v in settings.items()},
            {k: v.detach().cpu().numpy() for k, v in tensors.items()},
            loss.calibration,
        )
    )


def _source(thing):
    """Its source where Python can find it, so that an edited ``forward`` is another network."""
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        return repr(thing)


def _check_same(own, given, what):
    if not isinstance(given, Mapping):
        raise ValueError(f"expected {what} as a mapping from name to tensor, got a {type(given).__name__}")
    missing, foreign = [n for n in own if n not in given], [n for n in given if n not in own]
    if missing or foreign:
        raise ValueError(
            f"expected the module's {what}; missing: {missing}, not in the module: {foreign}. Were they recorded "
            "from another network?"
        )
    for name, tensor in own.items():
        if tuple(given[name].shape) != tuple(tensor.shape):
            raise ValueError(
                f"expected {what[:-1]} {name!r} of shape {tuple(tensor.shape)}, got {tuple(given[name].shape)}. Was it "
                "recorded from another network?"
            )
