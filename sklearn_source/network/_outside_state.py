"""What a net's loss depends on besides its ``state_dict``: counters, annealed coefficients, the length of its history.

Callbacks set attributes of the net and of its criterion, criteria and modules count their calls, ``get_loss`` reads
``self.history``: all of that is another loss at every checkpoint. Numbers are kept, and tensors of the criterion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from skorch.history import History

from ..utils._compat_torch import MODULE_ATTRIBUTES

_NUMBERS = (int, float, complex, np.number)
_LARGEST = 100_000  # numbers of a criterion's tensor: a table of weights, not a network


def outside_state(net: Any) -> dict[str, Any]:
    """Read what is outside the ``state_dict`` of a net that is being trained.

    Parameters
    ----------
    net : skorch.NeuralNet

    Returns
    -------
    state : dict
        ``"epochs"`` and ``"batches"``, the lengths of the history and of its last entry; ``"values"``, by (part of the
        net, path of a module in it, attribute) joined with ``"/"``, numbers and copied tensors.
    """
    history = net.history
    state: dict[str, Any] = {"epochs": len(history), "batches": len(history[-1].get("batches", ())) if history else 0}
    values: dict[str, Any] = {f"net//{name}": value for name, value in vars(net).items() if isinstance(value, _NUMBERS)}
    for part in ("criterion_", "module_"):
        for path, owner in _owners(getattr(net, part, None)):
            for name, value in vars(owner).items():
                if isinstance(value, _NUMBERS) and name not in MODULE_ATTRIBUTES:
                    values[f"{part}/{path}/{name}"] = value
                elif part == "criterion_" and isinstance(value, torch.Tensor) and value.numel() <= _LARGEST:
                    values[f"{part}/{path}/{name}"] = value.detach().to("cpu", copy=True)
            if part == "criterion_" and isinstance(owner, torch.nn.Module):
                for name, value in owner.named_buffers(recurse=False):
                    values[f"{part}/{path}/{name}"] = value.detach().to("cpu", copy=True)
    return state | {"values": values}


def same_values(recorded: Mapping[str, Any], present: Mapping[str, Any]) -> bool:
    """Whether all that was recorded is so now, but for the lengths of the history.

    Parameters
    ----------
    recorded, present : dict
        Of :func:`outside_state`.
    """

    def same(key, value):
        other = present["values"].get(key)
        if isinstance(value, torch.Tensor):
            return isinstance(other, torch.Tensor) and torch.equal(value, other)
        return value == other

    return all(same(key, value) for key, value in recorded["values"].items())


def set_outside_state(net: Any, state: Mapping[str, Any], history: History) -> None:
    """Bring a private net to a state of :func:`outside_state`.

    Parameters
    ----------
    net : skorch.NeuralNet
        Private: attributes are set on it, its module and its criterion.
    state : dict
    history : History
        Of the whole training; the net is given the beginning of it.
    """
    net.history_ = _beginning(history, state["epochs"], state["batches"])
    owners = {
        f"{part}/{path}": owner for part in ("criterion_", "module_") for path, owner in _owners(vars(net).get(part))
    }
    owners["net/"] = net
    for key, value in state["values"].items():
        place, name = key.rsplit("/", 1)
        owner = owners.get(place)
        if owner is None:
            continue
        if isinstance(value, torch.Tensor):
            present = getattr(owner, name, None)
            if isinstance(present, torch.Tensor) and present.shape == value.shape:
                present.data = value.to(present.device, present.dtype, copy=True)  # it may be written to
        elif vars(owner).get(name, value) != value:
            vars(owner)[name] = value


def _owners(part):
    """(path, object with attributes) of a module and all below it, or of a criterion that is no module."""
    if isinstance(part, torch.nn.Module):
        return list(part.named_modules())
    return [("", part)] if hasattr(part, "__dict__") and not isinstance(part, type) and not callable_alone(part) else []


def callable_alone(part):
    """Whether a criterion is a bare function, whose attributes are no state."""
    return type(part).__name__ in ("function", "builtin_function_or_method", "partial")


def _beginning(history, n_epochs, n_batches):
    """The history as it was within an epoch."""
    rows = list(history[:n_epochs]) if n_epochs else []
    if rows and n_batches < len(rows[-1].get("batches", ())):
        rows[-1] = {**rows[-1], "batches": rows[-1]["batches"][:n_batches]}
    beginning = History()
    beginning.extend(rows)
    return beginning
