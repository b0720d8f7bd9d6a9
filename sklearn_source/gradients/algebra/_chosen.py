"""Some of the Fisher columns of some rows, put together from the gradients of whole batches."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch

from ._condensed import condensed
from ._dense import Dense
from ._factored import Factored
from ._indexed import Indexed
from ._inputs import Inputs
from ._row_gradient import RowGradient


def chosen(columns: Sequence[Any], rows: torch.Tensor, numbers: torch.Tensor, factors: torch.Tensor) -> RowGradient:
    """``factors[i]`` times what ``columns[numbers[i]]`` has for row ``rows[i]``.

    Matrices that are no more numbers than their factors are formed.

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
    columns = condensed(columns)
    if not isinstance(columns[0], Factored):
        return Dense(_gathered([column.matrix() for column in columns], rows, numbers, factors))
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
