"""How much a training drew each of its rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..utils._compat_torch import tree_leaves, tree_map
from ._row_locator import RowLocator, length_of

_MAX_BATCHES, _MAX_BYTES = 64, 4 << 20  # looked up together: most of the price of a small batch is per look-up


class DrawCounter:
    """Counts the draws of every row of a dataset by the contents of the batches: shares of batches, and draws.

    Parameters
    ----------
    dataset : Dataset or RowStream
        What skorch trains on, after ``train_split``.
    collate : callable, optional
        How the net puts its items into batches.

    Attributes
    ----------
    locator : RowLocator
    unknown : float
        What rows of the batches looked up so far count that are none of the dataset's.
    """

    def __init__(self, dataset: Any, collate: Callable | None = None):
        self.locator, self.unknown = RowLocator(dataset, collate), 0.0
        self._draws = np.zeros((2, len(self.locator.group)))
        self._waiting: list[Any] = []

    def add(self, Xi: Any, yi: Any = None) -> None:
        """Count the rows of a batch as the net's iterator gives it."""
        n_bytes = sum(leaf.nbytes for leaf in tree_leaves((Xi, yi)) if isinstance(leaf, torch.Tensor))
        if n_bytes > _MAX_BYTES // _MAX_BATCHES:
            self._count((Xi, yi), [length_of(Xi)])
            return
        # Copied: a module may write into its input.
        batch = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, (Xi, yi))
        self._waiting.append(batch)
        if len(self._waiting) >= _MAX_BATCHES:
            self._look_up()

    def draws(self) -> np.ndarray:
        """So far, ndarray of shape (2, n_rows): shares of batches, draws; rows that equal each other share evenly."""
        self._look_up()
        return np.stack([self.locator.shared(draws) for draws in self._draws])

    def _look_up(self):
        waiting, self._waiting = self._waiting, []
        sizes = [length_of(batch[0]) for batch in waiting]
        if len({_form(batch) for batch in waiting}) == 1:
            self._count(tree_map(lambda *leaves: torch.cat(leaves), *waiting), sizes)
            return
        for batch, size in zip(waiting, sizes):
            self._count(batch, [size])

    def _count(self, batch, sizes):
        rows, counts = self.locator.indices(*batch), np.repeat(1.0 / np.asarray(sizes), sizes)
        known = rows >= 0
        self.unknown += float(counts[~known].sum())
        np.add.at(self._draws[0], rows[known], counts[known])
        np.add.at(self._draws[1], rows[known], 1.0)


def _form(batch):
    """What batches that can be joined have in common; of others, something of their own."""
    leaves = tree_leaves(batch)
    if not all(isinstance(leaf, torch.Tensor) and leaf.ndim for leaf in leaves):
        return id(batch)
    return tuple((leaf.shape[1:], leaf.dtype) for leaf in leaves)
