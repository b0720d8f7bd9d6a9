"""Values and identity of a network's module."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..utils._digest import digest


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


def signature_of(net, row_loss, dtype):
    """See :meth:`Network.signature`: of a private skorch net, its row losses and the type of its parameters."""
    criterion = row_loss.batch_loss.criterion
    code = [type(net.module_), type(net).get_loss, type(criterion)]
    settings = [_settings(module) for module in (*net.module_.modules(), criterion)]
    tensors = dict(criterion.named_buffers()) if isinstance(criterion, torch.nn.Module) else {}
    return digest([repr(net.module_), str(dtype), code, settings, tensors, row_loss.calibration])


def _settings(module):
    """Attributes of a module or criterion besides what it holds."""
    return {} if module is None else {k: v for k, v in vars(module).items() if not k.startswith("_")}


def _check_same(own, given, what):
    """Refuse tensors by name that do not fit the module's ``own``; ``what`` they are, in the plural, is told."""
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
