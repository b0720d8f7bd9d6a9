"""Numbers outside the ``state_dict`` that were changed by hand after the training: a scale, a rate of dropout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..rows import Rows
from ..utils._first_rows import N_ROWS
from ..utils._warnings import warn
from ._network import Network
from ._training_gradients import training_gradients

_MOST = 20  # numbers that are tried, each by a gradient of a few rows
_SAME = 1e-6


def changed_numbers(network: Network, rows: Rows, outside: Iterable[Mapping[str, Any] | None]) -> dict[str, Any]:
    """Which numbers of module, criterion and net are others than in the training, and matter to its loss.

    A number that is another one and leaves the gradient of a few rows as it is, a counter of calls say, is none of
    these; nor is one that changed while the training ran, whose present value says nothing of it.

    Parameters
    ----------
    network : Network
        Left as it is.
    rows : Rows
        The training rows, as they were given.
    outside : iterable of mapping or None
        Of the checkpoints, the last one first, as :func:`outside_state` read it.

    Returns
    -------
    changed : dict of str to (recorded, present)
        By the place of each, ``"module_.scale"``; empty where nothing differs. Costs then a comparison of numbers, else
        gradients of up to eight rows.
    """
    records = iter(outside)
    last = next(records, None)
    present = network.present_outside
    if last is None:
        return {}
    differ = [key for key, value in last["values"].items() if not _alike(value, present["values"].get(key, value))]
    if not differ:
        return {}
    steady = {key: last["values"][key] for key in differ}
    for record in records:
        if record is not None:
            steady = {k: v for k, v in steady.items() if _alike(record["values"].get(k, v), v)}
    try:
        now = _gradient(network, rows, present)
        found = {}
        for key in list(steady)[:_MOST]:
            then = {**present, "values": {**present["values"], key: steady[key]}}
            if not _same_gradient(now, _gradient(network, rows, then)):
                found[_place(key)] = _shown(steady[key]), _shown(present["values"][key])
    except Exception:  # the user's own code, in a mode that it was not trained in perhaps: nothing is known then
        return {}
    return found


def warn_changed_numbers(network: Network, rows: Rows, checkpoints: Sequence[Any]) -> None:
    """Warn of what :func:`changed_numbers` finds.

    Parameters
    ----------
    network, rows
        As there.
    checkpoints : sequence of Checkpoint
        Of the training, in their order.

    Warns
    -----
    UserWarning
    """
    changed = changed_numbers(network, rows, (point.outside for point in reversed(checkpoints)))
    said = [f"{place} was {then!r} in the recorded training and is {now!r}" for place, (then, now) in changed.items()]
    if said:
        warn(
            f"{'; '.join(said[:3])}{' and others' if len(said) > 3 else ''}: the network that is scored is another "
            "function than the one that was trained. Set it back, or train again"
        )


def _alike(one, other):
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        both = isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor) and one.shape == other.shape
        return both and bool(torch.equal(one.cpu(), other.cpu().to(one.dtype)))
    return one == other or (one != one and other != other)


def _gradient(network, rows, outside):
    """Of the net's own loss of the first rows, in training mode, always with the same random draws."""
    n = min(N_ROWS, len(rows))
    x, y = rows.batch(np.arange(n))
    states = {
        "torch": torch.Generator().manual_seed(0).get_state(),
        "numpy": np.random.RandomState(0).get_state(),
    }
    if network.device.type == "cuda":
        states["cuda"] = torch.Generator(network.device).manual_seed(0).get_state()
    batch = x, torch.zeros(n, device=network.device) if y is None else y
    parameters, buffers = dict(network.parameters()), dict(network.buffers())
    return training_gradients(network, parameters, buffers, outside, [(batch, states)], training=n > 1)


def _same_gradient(one, other):
    if one.keys() != other.keys():
        return False
    size = max([float(g.double().norm()) for g in (*one.values(), *other.values())], default=0.0)
    return all(float((one[n].double() - other[n].double()).norm()) <= _SAME * size for n in one)


def _place(key):
    """``part/path/name`` as people write it."""
    part, path, name = key.split("/", 2) if key.count("/") > 1 else (*key.split("/", 1), "")
    return ".".join(filter(None, (part, *path.split("."), name)))


def _shown(value):
    return value if not isinstance(value, torch.Tensor) else value.tolist() if value.numel() < 5 else "a tensor"
