"""One pass after another over a stream: of rows, which are collated here, or of batches, which are cut here."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

from ..utils._compat_torch import tree_leaves
from ._dataset_rows import collated, pair_of
from ._hasher import Hasher
from ._table_hashes import pair_hashes
from ._tensors import as_tensors, take_tensors
from ._yielded_rows import item_hashes, told_apart


class RowReader:
    """Reads a stream of rows. Some of them read together are a list of them as they came.

    Parameters
    ----------
    stream : iterable
        Every pass is an ``iter`` of it.
    collate : callable
        From a list of rows to a batch.
    """

    def __init__(self, stream: Iterable[Any], collate: Callable):
        self.stream, self._collate = stream, collate
        self.same_width = True  # of rows that are told apart before they are padded
        self._items: Any = None

    def rewind(self) -> None:
        """Begin a pass."""
        self._items = iter(self.stream)

    def closed(self) -> RowReader:
        """Another reader of the same stream, with no pass under way, to be pickled."""
        other = copy.copy(self)
        other._items = None
        return other

    def read(self, n: int) -> Any:
        """The next rows: ``n``, or as many as are left."""
        return list(islice(self._items, n))

    def hashes(self, part: Any, exact: bool = False) -> np.ndarray:
        """Fingerprints, those of the same rows in arrays where they are of a kind that arrays can hold."""
        by_itself = None if self._collate is default_collate else self._collate
        hashes = item_hashes(told_apart(part, by_itself), Hasher(exact))
        if hashes is None:  # objects that only the collate function understands
            batches = [self.join([[item]]) for item in part]
            hashes = np.concatenate([_batch_hashes(x, y, exact) for x, y in batches])
        return hashes

    def take(self, part: Any, positions: np.ndarray) -> Any:
        """Some of the rows."""
        return [part[i] for i in positions.tolist()]

    def join(self, parts: list[Any]) -> tuple[Any, Any]:
        """Rows as one batch of tensors."""
        x, y = collated([item for part in parts for item in part], self._collate)
        return as_tensors(x), as_tensors(y)


class BatchReader:
    """Reads a stream of batches. Some rows read together are a piece of a batch, a pair (x, y), with its own memory.

    Parameters
    ----------
    stream : iterable
        Every pass is an ``iter`` of it. Gives pairs (X, y), or X alone, as a DataLoader does.
    """

    def __init__(self, stream: Iterable[Any]):
        self.stream = stream
        self._shapes: set[Any] = set()
        self._batches: Any = None
        self._batch: Any = None

    @property
    def same_width(self) -> bool:
        """Whether all rows so far have one shape; those that a batch padded cannot be known elsewhere."""
        return len(self._shapes) < 2

    def rewind(self) -> None:
        """Begin a pass."""
        self._batches, self._batch, self._n, self._at = iter(self.stream), None, 0, 0

    def closed(self) -> BatchReader:
        """Another reader of the same stream, with no pass under way, to be pickled."""
        other = copy.copy(self)
        other._batches = other._batch = None
        return other

    def read(self, n: int) -> Any:
        """The next rows: ``n`` or fewer; none at the end of the stream."""
        while self._at == self._n:
            batch = next(self._batches, None)
            if batch is None:
                return None, None
            x, y = pair_of(batch)
            self._batch, self._at = (as_tensors(x), as_tensors(y)), 0
            self._n = _length(self._batch)
            shapes = [None if leaf is None else leaf.shape[1:] for leaf in tree_leaves(self._batch)]
            self._shapes.add(tuple(shapes))
        rows = slice(self._at, min(self._n, self._at + n))
        self._at = rows.stop
        x, y = (take_tensors(tree, rows) for tree in self._batch)  # copies: a stream may fill one buffer again
        return x, y

    def hashes(self, part: Any, exact: bool = False) -> np.ndarray:
        """Fingerprints, those of the same rows in arrays."""
        x, y = part
        return _batch_hashes(x, y, exact)

    def take(self, part: Any, positions: np.ndarray) -> Any:
        """Some of the rows."""
        return tuple(take_tensors(tree, positions) for tree in part)

    def join(self, parts: list[Any]) -> tuple[Any, Any]:
        """Rows as one batch."""
        if len(parts) == 1:
            return parts[0]
        try:
            x, y = (_cat([part[i] for part in parts]) for i in range(2))
        except RuntimeError as error:
            raise ValueError(
                f"batches of the stream cannot be joined ({error}): where rows differ in length, pass a stream of rows "
                "(a torch IterableDataset) and give the net a function that pads, iterator_train__collate_fn"
            ) from None
        return x, y


def count_of(part: Any) -> int:
    """How many rows were read together."""
    if isinstance(part, list):
        return len(part)
    return 0 if part[0] is None else _length(part)


def _batch_hashes(x, y, exact):
    hash_batch = Hasher(exact)
    hashes = hash_batch(x, True)
    hashes = hashes if y is None else pair_hashes(hashes, hash_batch(y, True))
    if hashes is None:
        raise ValueError("expected numbers in the rows of the stream, got tensors that are none")
    return hashes


def _length(batch):
    """Rows of a batch, which all its tensors have alike."""
    leaves = [leaf for leaf in tree_leaves(batch) if leaf is not None]
    if any(not isinstance(leaf, torch.Tensor) or not leaf.ndim for leaf in leaves) or len({*map(len, leaves)}) != 1:
        raise ValueError(
            "expected batches (X, y) of tensors with as many targets as rows, as a DataLoader gives them, got "
            + ", ".join(str(tuple(leaf.shape)) if hasattr(leaf, "shape") else type(leaf).__name__ for leaf in leaves)
            + ": a stream of single rows is passed as a torch IterableDataset, to a net whose loader does not collate "
            "(batch_size=None) within DataLoader(stream, batch_size=256)"
        )
    return len(leaves[0])


def _cat(trees):
    first = trees[0]
    if isinstance(first, dict):
        return {name: _cat([tree[name] for tree in trees]) for name in first}
    if isinstance(first, list):
        return [_cat(list(each)) for each in zip(*trees)]
    return None if first is None else torch.cat(trees)
