"""Fisher columns as matrices where these are fewer numbers than the factors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ._dense import Dense
from ._factored import Factored
from ._inputs import laid_out
from ._products import LAYOUT_BYTES, even_chunks


def condensed(columns: Sequence[Any]) -> list[Any]:
    """The same gradients, formed where matrices of several positions are no more numbers than their factors.

    Columns of one row share its inputs: these are laid out once for all of them.

    Parameters
    ----------
    columns : list of RowGradient
        The gradients of the same rows for each column of the Fisher's root, in one form and with the same inputs.
    """
    first = columns[0]
    if not isinstance(first, Factored) or first.n_positions == 1 or not first.smaller_as_matrices:
        return list(columns)
    groups, n_out, n_in = first.shape
    found = first.g.new_empty((len(columns), len(first), groups, n_out, n_in))
    width = len(columns) * n_out
    step = LAYOUT_BYTES // (groups * first.n_positions * max(width, n_in) * found.element_size())
    for rows in even_chunks(len(first), step):
        a = laid_out(first.inputs[rows])
        g = _side_by_side([column.g[rows] for column in columns])  # (rows, groups, columns out, T)
        formed = torch.bmm(g.flatten(0, 1), a.flatten(0, 1)).view(len(a), groups, len(columns), n_out, n_in)
        found[:, rows] = formed.permute(2, 0, 1, 3, 4)
    return [Dense(own) for own in found]


def _side_by_side(parts):
    """Tensors (rows, groups, T, out) as one (rows, groups, parts out, T), copied along the axis that lies together."""
    if parts[0].stride(2) == 1:  # as convolutions have them
        return torch.cat([part.mT for part in parts], dim=2)
    return torch.cat(parts, dim=3).mT
