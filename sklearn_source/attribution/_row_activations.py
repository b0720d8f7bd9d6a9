"""Activations of one layer, row by row, wherever the layer has its rows."""

from __future__ import annotations

from itertools import product

import torch

from ..utils._compat_torch import tree_map
from ..utils._warnings import warn

_TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-3}


class RowActivations:
    """What a layer of a network gives, or is given, for every row.

    Rows may be its first axis or another (time first), alone or flattened together with positions, (B * T, H) or
    (T * B, H). Which it is shows on a few rows that are passed together and one by one. Where it is nothing of the
    kind, rows are passed one by one throughout, and that is said.

    Parameters
    ----------
    network : Network
    name : str
        Of the layer.
    take_input : bool
        Its input instead of its output; where it is given ids, its output all the same.
    x : tree of Tensor
        A few rows, different from each other.
    n_rows : int
        How many.
    """

    def __init__(self, network, name, take_input, x, n_rows):
        self._network, self._name, self._take_input = network, name, take_input
        if n_rows == 1:  # thrice the same still shows which axis grows, and in which order
            x, n_rows = _rows(x, [0, 0, 0]), 3
        if not bool(torch.isfinite(self._run(x)).all()):
            raise ValueError(
                f"the activations of layer {name!r} are not finite on a batch of rows: its training diverged, or the "
                "rows hold numbers out of range"
            )
        self._layout = _layout(self._run, x, n_rows)
        if self._layout is not None:
            return
        with torch.no_grad():
            if _layout(network.forward, x, n_rows) is None:
                raise ValueError(
                    "the network's output for a row changes with the other rows of its batch, or from call to call: no "
                    "activation belongs to one row. Statistics over a batch and random numbers must stop in evaluation "
                    "mode, as those of BatchNorm and Dropout do"
                )
        warn(
            f"which of the activations of layer {name!r} belong to which row cannot be told where rows are passed "
            "together: each is passed alone, which takes long; name another layer, layer=, if there is one",
        )

    def __call__(self, x, n_rows):
        """Activations of ``n_rows`` rows, flattened: (n_rows, width)."""
        if self._layout is not None:
            return _split(self._run(x), n_rows, *self._layout).flatten(1)
        parts = [self._run(_rows(x, [i])).reshape(1, -1) for i in range(n_rows)]
        if len({part.shape for part in parts}) > 1:
            raise ValueError(f"expected activations of one size per row in layer {self._name!r}: name another, layer=")
        return torch.cat(parts)

    @torch.no_grad()
    def _run(self, x):
        """The activations of a batch, as the layer has them."""
        seen = []

        def hook(module, args, kwargs, output):
            given = next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)), None)
            use_input = self._take_input and given is not None and given.is_floating_point()
            seen.append(given if use_input else output[0] if isinstance(output, tuple) else output)

        handle = self._network.module.get_submodule(self._name).register_forward_hook(hook, with_kwargs=True)
        try:
            self._network.forward(x)
        finally:
            handle.remove()
        last = seen[-1] if seen else None
        if not isinstance(last, torch.Tensor) or not last.is_floating_point() or not last.ndim:
            raise ValueError(
                f"layer {self._name!r} did not give one tensor of floating-point numbers on these rows: name another "
                "with layer="
            )
        return last.detach().clone()


def _layout(run, x, n_rows):
    """(axis, rows_first) of the rows in ``run(x)``, None where there is none: rows alone tell what is theirs."""
    together, alone = run(x), [run(_rows(x, [i])) for i in range(n_rows)]
    tolerance = _TOLERANCE.get(together.dtype, 5e-2) * float(together.abs().max())
    for axis, rows_first in product(range(together.ndim), (True, False)):
        if together.shape[axis] % n_rows:
            continue
        rows = _split(together, n_rows, axis, rows_first)
        own = [_split(each, 1, axis, rows_first)[0] if each.ndim == together.ndim else each for each in alone]
        if all(row.shape == o.shape and torch.allclose(row, o, 0, tolerance) for row, o in zip(rows, own)):
            return axis, rows_first
    return None


def _rows(x, index):
    """Some rows of a batch, which may hold what is not by row."""
    return tree_map(lambda leaf: leaf[index] if isinstance(leaf, torch.Tensor) and leaf.ndim else leaf, x)


def _split(activations, n_rows, axis, rows_first):
    """The rows of activations as their first axis: (n_rows, k, ...)."""
    moved = activations.movedim(axis, 0)
    k = len(moved) // n_rows
    if rows_first:
        return moved.reshape(n_rows, k, *moved.shape[1:])
    return moved.reshape(k, n_rows, *moved.shape[1:]).transpose(0, 1)
