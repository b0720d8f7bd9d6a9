"""What a net keeps from one training step to the next besides the parameters and buffers of its module.

A counter of steps, a running mean in the criterion, a list that ``forward`` appends to: networks that train together
share it, and no ``state_dict`` carries it to where a network is read.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from ..utils._compat_skorch import OWN_NOTES, criterion_names, module_names
from ..utils._compat_torch import OF_EVERY_MODULE
from ..utils._digest import bytes_digest, digest, tensor_digest

CODE = "a variable outside of the network that its code names"
_LEFT = "left behind"
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def training_state(net):
    """The state of an initialized net outside of parameters and buffers, described: dict from name to text.

    Tensors that carry a graph are only named: a forward pass left them behind (a map of attention, a weight that is
    computed from others), as the next step could not use them.
    """
    modules, criteria = module_names(net), criterion_names(net)
    parts = [f"{name}_" for name in [*modules, *criteria]]
    state = {f"net.{name}": _text(value) for name, value in vars(net).items() if _is_own(name, parts)}
    for name in parts:
        for path, part in _parts_in(getattr(net, name)):
            path = f"{name}.{path}" if path else name
            # Buffers of a criterion are as foreign to a network's state_dict as its attributes are.
            foreign = name.removesuffix("_") in criteria and isinstance(part, nn.Module)
            buffers = dict(part.named_buffers(recurse=False)) if foreign else {}
            for attribute, value in {**getattr(part, "__dict__", {}), **buffers}.items():
                if attribute not in OF_EVERY_MODULE:
                    state[f"{path}.{attribute}"] = _text(value)
    state[CODE] = digest(code_of(net))
    return state


def code_of(net):
    """The classes of an initialized net and its parts, whose code names variables: list of type."""
    parts = [getattr(net, f"{name}_") for name in [*module_names(net), *criterion_names(net)]]
    return [type(net), *(type(part) for whole in parts for _, part in _parts_in(whole))]


def _parts_in(whole):
    return whole.named_modules() if isinstance(whole, nn.Module) else [("", whole)]


def changed(before, after):
    """The name of what differs between two states, None where nothing does but what a forward pass left behind."""
    for name in {**before, **after}:
        values = before.get(name, ""), after.get(name, "")
        if values[0] != values[1] and not (
            _LEFT in values and all(v in ("", _LEFT) or v[:6] == "tensor" for v in values)
        ):
            return name
    return None


def _is_own(name, parts):
    """Whether an attribute of a net may be the user's own."""
    return name not in OWN_NOTES and name not in parts and not name.startswith(("iterator_", "callbacks__"))


def _text(value, above=()):
    """A description that is equal for equal values; of objects, by what they hold."""
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, torch.Tensor):
        if value.grad_fn is not None or isinstance(value, nn.Parameter):
            return _LEFT
        try:
            return f"tensor {tensor_digest({'': value})}"
        except RuntimeError:  # left by a pass under vmap, which is over
            return _LEFT
    if isinstance(value, np.ndarray) and value.dtype != object:
        return f"array {value.dtype} {value.shape} {bytes_digest(np.ascontiguousarray(value).tobytes())}"
    if any(other is value for other in above):
        return "above"
    above = (*above, value)
    if isinstance(value, torch.Generator):
        return tensor_digest({"": value.get_state()})
    if isinstance(value, np.random.Generator):
        return _text(value.bit_generator.state, above)
    if isinstance(value, np.random.RandomState):
        return _text(value.get_state(), above)
    if isinstance(value, random.Random):
        return repr(value.getstate())
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_text(item, above)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple, deque, np.ndarray)):
        return "[" + ", ".join(_text(item, above) for item in value) + "]"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(_text(item, above) for item in value)) + "}"
    kind = type(value).__qualname__
    if isinstance(value, nn.Module):
        return kind  # a part of the net, which is looked at by its name
    if isinstance(value, type) or callable(value) and not hasattr(value, "__dict__"):
        return getattr(value, "__qualname__", kind)
    if getattr(value, "__dict__", None):
        return kind + _text(vars(value), above)
    text = repr(value)
    return kind if " at 0x" in text else text  # itertools.count, a date, ...
