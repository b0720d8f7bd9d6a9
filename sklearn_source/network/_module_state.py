"""Values and identity of a network's module."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..utils._compat_skorch import OWN_NOTES, criterion_names, module_names
from ..utils._compat_torch import HOOKS, OF_EVERY_MODULE
from ..utils._digest import identify


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


def signature_of(net, calibration, dtype):
    """See :meth:`Network.signature`: of a private skorch net, what fixes its row losses, the type of its parameters."""
    parts = [*module_names(net), *criterion_names(net)]
    modules = [(name, path, part) for name in parts for path, part in _parts_of(getattr(net, f"{name}_"))]
    named = dict(net.module_.named_parameters()) | dict(net.module_.named_buffers())
    own = {id(value): f"parameter {name}" for name, value in named.items()}
    own |= {id(part): f"part {name}_.{path}" for name, path, part in modules} | {id(net): "net"}
    described = {
        "net": type(net),  # its infer and get_loss, and whatever these call
        "of the net": {name: value for name, value in vars(net).items() if _may_be_read(name, parts)},
        "modules": [(name, path, type(part), _settings(part)) for name, path, part in modules],
        "structure": repr(net.module_),
        "criterion": _tensors(net, criterion_names(net)),
        "dtype": str(dtype),
        "calibration": calibration,
    }
    return identify(described, own)


def _parts_of(part):
    """(path, module) of a module and all below it, or of a criterion that is none."""
    return list(part.named_modules()) if isinstance(part, torch.nn.Module) else [("", part)]


def _may_be_read(name, parts):
    """Whether an attribute of a net may be something that its ``infer`` or ``get_loss`` reads."""
    known = name in OWN_NOTES or name.removesuffix("_") in parts
    return not known and name != "device" and not name.startswith(("iterator_", "callbacks__", "optimizer"))


def _settings(part):
    """Attributes of a module or criterion besides what every module has, and the hooks that belong to it."""
    attributes = getattr(part, "__dict__", {})
    hooks = {name: list(attributes[name].values()) for name in HOOKS if attributes.get(name)}
    # Modules of torch keep lists of their own parameters, and what these were computed from.
    is_torchs = type(part).__module__.split(".")[0] == "torch"
    settings = {
        name: value
        for name, value in attributes.items()
        if name not in OF_EVERY_MODULE and not (is_torchs and name.startswith("_"))
    }
    return settings | hooks


def _tensors(net, names):
    """Parameters and buffers of criteria, which no checkpoint holds."""
    criteria = [getattr(net, f"{name}_") for name in names]
    modules = [c for c in criteria if isinstance(c, torch.nn.Module)]
    own = {id(p) for p in net.module_.parameters()}
    return [
        {name: value for name, value in [*c.named_parameters(), *c.named_buffers()] if id(value) not in own}
        for c in modules
    ]


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
