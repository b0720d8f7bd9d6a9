"""Some of the Fisher columns of some rows, put together from the gradients of whole batches."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch

from ._dense import Dense
from ._factored import Factored
from ._indexed import Indexed
from ._inputs import Inputs, laid_out
from ._products import LAYOUT_BYTES, even_chunks
from ._row_gradient import RowGradient


def chosen(columns: Sequence[Any], rows: torch.Tensor, numbers: torch.Tensor, factors: torch.Tensor) -> RowGradient:
    """``factors[i]`` times what ``columns[numbers[i]]`` has for row ``rows[i]``.

    Matrices that are no more numbers than their factors are formed here, where columns of one row share its inputs.

    Parameters
    ----------
    columns : list of RowGradient
        The gradients of the same rows for each column of the Fisher's root, in one form and with the same inputs.
    rows, numbers : tensor of int64 (n,)
        The rows ascending.
    factors : tensor (n,)
    """
    first = columns[0]
    if isinstance(first, Indexed):
        return Indexed(first.tokens[rows], _gathered([c.g for c in columns], rows, numbers, factors), first.n_tokens)
    if not isinstance(first, Factored):
        return Dense(_gathered([column.matrix() for column in columns], rows, numbers, factors))
    if first.n_positions > 1 and first.smaller_as_matrices:
        return Dense(_matrices(columns, rows, numbers, factors))
    inputs = first.inputs
    inputs = Picked(inputs, rows) if isinstance(inputs, Inputs) else inputs[rows]
    return Factored(inputs, _gathered([column.g for column in columns], rows, numbers, factors))


class Picked(Inputs):
    """Inputs of which some rows are taken, once or several times each; those of a slice are laid out once each."""

    def __init__(self, inputs, index):
        lay_out = functools.partial(_lay_out_picked, inputs, index)
        super().__init__(lay_out, inputs.sources, (len(index), *inputs.shape[1:]))
        self._of, self._index = inputs, index

    def rotated(self, basis):
        """The protocol's; every row once, however often it is taken."""
        return Picked(self._of.rotated(basis), self._index)[self._rows]


def _lay_out_picked(inputs, index, sources, rows):
    index = index[rows]
    if not len(index):
        return inputs[0:0]()
    low, high = int(index[0]), int(index[-1]) + 1
    return inputs[low:high]()[index - low]


def _gathered(tensors, rows, numbers, factors):
    """``factors[i] * tensors[numbers[i]][rows[i]]``."""
    found = tensors[0].new_empty((len(rows), *tensors[0].shape[1:]))
    for number, tensor in enumerate(tensors):
        own = (numbers == number).nonzero().squeeze(1)
        found[own] = tensor[rows[own]]
    return found.mul_(factors.to(found).reshape(-1, *[1] * (found.dim() - 1)))


def _matrices(columns, rows, numbers, factors):
    """(n, groups, out, in): of every row with some of its columns those of all, in one product."""
    first = columns[0]
    groups, n_out, n_in = first.shape
    found = first.g.new_empty((len(rows), *first.shape))
    present, place = rows.unique(return_inverse=True)
    width = len(columns) * n_out
    step = LAYOUT_BYTES // (groups * first.n_positions * max(width, n_in) * found.element_size())
    for some in even_chunks(len(present), step):
        own = slice(*torch.searchsorted(place, torch.tensor([some.start, some.stop], device=place.device)).tolist())
        few = present[some]
        low, high = int(few[0]), int(few[-1]) + 1
        a = laid_out(first.inputs[low:high])[few - low]
        g = torch.cat([column.g[few] for column in columns], dim=3)  # (rows, groups, T, columns out)
        formed = torch.bmm(g.flatten(0, 1).mT, a.flatten(0, 1)).view(len(few), groups, len(columns), n_out, n_in)
        found[own] = formed[place[own] - some.start, :, numbers[own]]
    return found.mul_(factors.to(found)[:, None, None, None])
