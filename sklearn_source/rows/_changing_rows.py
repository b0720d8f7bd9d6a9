"""Rows that a Dataset gives otherwise at each reading: augmentation."""

from __future__ import annotations

import torch

from ..utils._compat_torch import tree_leaves
from ..utils._warnings import warn
from ._dataset_rows import DatasetRows
from ._rows import Rows
from ._yielded_rows import sampled_rows, undisturbed

_MAX_BYTES = 32 << 20  # of the rows that are read twice


def warn_changing_rows(rows: Rows, what: str) -> None:
    """Read a few rows twice, and say so where the second reading gives others. No generator of numbers moves.

    Parameters
    ----------
    rows : Rows
    what : str
        What the warning calls them.

    Warns
    -----
    UserWarning
        With the relative size of the change.
    """
    if not isinstance(rows, DatasetRows):
        return
    with undisturbed(rows.dataset):
        n_bytes = sum(leaf.nbytes for leaf in _tensors(rows.batch([0])))
        index = sampled_rows(len(rows), min(64, max(2, _MAX_BYTES // max(1, n_bytes))))
        size = _relative_change(_tensors(rows.batch(index)), _tensors(rows.batch(index)))
    if size:
        warn(
            f"the {what} of {type(rows.dataset).__name__} change at each reading ({size}): scores belong to values "
            "drawn anew, not to those that training saw, and differ from call to call; give them without the random "
            "part (the same Dataset, its augmentation off), or draw it from the row's index, "
            "torch.Generator().manual_seed(index) say",
        )


def _tensors(batch):
    return [leaf for leaf in tree_leaves(batch) if isinstance(leaf, torch.Tensor)]


def _relative_change(one, two):
    """How far two readings lie apart, in words; None where they are the same."""
    if [leaf.shape for leaf in one] != [leaf.shape for leaf in two]:
        return "in shape"
    changes = []
    for a, b in zip(one, two):
        a, b = (x.to(torch.complex128 if x.is_complex() else torch.float64) for x in (a, b))
        changes.append(float((a - b).norm() / a.norm().clamp_min(1e-300)))
    return f"by {max(changes):.2g} of their size" if any(changes) else None
