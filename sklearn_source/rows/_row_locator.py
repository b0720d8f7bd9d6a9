"""Which training rows a batch holds, seen by what they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ._array_rows import arrays_of
from ._hasher import hash_batch
from ._row_stream import RowStream
from ._table_hashes import pair_hashes
from ._yielded_rows import yielded_hashes


class RowLocator:
    """Recognises the rows of a training's batches, whatever sampler drew them, by fingerprints of their contents.

    Nothing of the training is changed or wrapped. Fingerprints do not depend on the batch a row stands in, nor on the
    type of its numbers. Costs one pass over the rows, and of a batch about what copying it costs.

    Parameters
    ----------
    dataset : Dataset or RowStream
        What skorch trains on, after ``train_split``.
    collate : callable, optional
        How the net puts its items into batches.

    Attributes
    ----------
    known : ndarray of uint64 or None
        Fingerprints, sorted; None where the rows have none (a large Dataset of the user's, rows that change at each
        reading or are padded to the longest of their batch): :meth:`indices` then knows no row.
    group : ndarray of int64, shape (n_rows,)
        Rows of the same number equal each other.
    """

    def __init__(self, dataset: Any, collate: Callable | None = None):
        n_rows = len(dataset)
        hashes, self._has_targets = _hashes(dataset, collate)
        self.known: Any = None
        self._first, self.group = np.arange(n_rows), np.arange(n_rows)
        if hashes is not None:
            self.known, self._first, self.group = np.unique(hashes, return_index=True, return_inverse=True)

    def indices(self, Xi: Any, yi: Any = None) -> np.ndarray:
        """Which rows of the dataset a batch holds.

        Parameters
        ----------
        Xi, yi : Tensor, or dict or list of Tensor
            As the net's iterator gives them.

        Returns
        -------
        indices : ndarray of int64, shape (B,)
            Of rows that equal each other, the first; -1 for what is no row of the dataset.
        """
        hashes = hash_batch(Xi)
        if self._has_targets:
            hashes = pair_hashes(hashes, hash_batch(yi))
        if hashes is None or self.known is None:
            return np.full(length_of(Xi), -1, dtype=np.int64)
        places = np.minimum(np.searchsorted(self.known, hashes), len(self.known) - 1)
        return np.where(self.known[places] == hashes, self._first[places], -1)

    def shared(self, draws: np.ndarray) -> np.ndarray:
        """Numbers of draws by row (n_rows,), those of rows that equal each other shared out evenly among them."""
        if self.known is None:
            return np.asarray(draws, dtype=np.float64)
        total = np.bincount(self.group, weights=draws)
        return (total / np.bincount(self.group))[self.group]


def _hashes(dataset, collate):
    """Fingerprints of a dataset's rows as its batches show them, None where they have none; whether targets count."""
    if isinstance(dataset, RowStream):
        return dataset.hashes, dataset.has_targets
    if isinstance(dataset, torch.utils.data.Subset):
        hashes, has_targets = _hashes(dataset.dataset, collate)
        return (None if hashes is None else hashes[np.asarray(dataset.indices, dtype=np.int64)]), has_targets
    arrays = arrays_of(dataset)
    if arrays is None:
        return yielded_hashes(dataset, hash_batch, sample=False, collate=collate)
    hashes = hash_batch(arrays[0])
    if arrays[1] is None:
        return hashes, False
    return pair_hashes(hashes, hash_batch(arrays[1])), True


def length_of(tree):
    """Rows of a batch."""
    while not isinstance(tree, torch.Tensor):
        tree = next(iter(tree.values() if isinstance(tree, dict) else tree))
    return len(tree)
