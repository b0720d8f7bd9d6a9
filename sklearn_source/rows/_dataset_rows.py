"""Rows of any map-style dataset, collated item by item."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from ._rows import Rows
from ._tensors import as_tensors, check_numbers


class DatasetRows(Rows):
    """Rows collated from the items of any map-style dataset."""

    def __init__(self, dataset: Any, collate: Callable, **options: Any):
        super().__init__(len(dataset), **options)
        self.dataset, self._collate = dataset, collate
        x, y = self._fetch([0])
        # skorch's Dataset gives torch.Tensor([0]) for a row without target, which is no target.
        is_placeholder = getattr(dataset, "y", self) is None and isinstance(y, torch.Tensor) and y.shape == (1, 1)
        self.has_y = not (y is None or (is_placeholder and y.is_floating_point() and not y.any()))
        if isinstance(x, torch.Tensor) and x.ndim == 2:
            self.n_features = x.shape[1]

    def batch(self, indices: slice | ArrayLike) -> tuple[Any, Any]:
        index = self._index(indices)
        index = range(*index.indices(len(self))) if isinstance(index, slice) else index.tolist()
        x, y = self._fetch(list(index))
        x, y = self._move(as_tensors(x)), self._move(as_tensors(y), self._integers) if self.has_y else None
        for name, tree in (("X", x), ("y", y)):
            check_numbers(tree, name, self._dtype, rows=index)
        return x, y

    def _fetch(self, index):
        many = getattr(self.dataset, "__getitems__", None)
        items = many(index) if many else [self.dataset[i] for i in index]
        return collated(items, self._collate)


def pair_of(batch: Any) -> tuple[Any, Any]:
    """Inputs and targets of a batch as a loader gives it, None for targets that are not there."""
    if isinstance(batch, (torch.Tensor, np.ndarray, Mapping)):
        return batch, None  # queries may come without targets
    if not isinstance(batch, (tuple, list)) or len(batch) not in (1, 2):
        raise ValueError(
            "expected the dataset (after its collate_fn) to give pairs (X, y), as skorch does, got "
            + (f"{len(batch)} values" if isinstance(batch, (tuple, list)) else f"a {type(batch).__name__}")
        )
    return batch[0], batch[1] if len(batch) == 2 else None


def collated(items: list[Any], collate: Callable) -> tuple[Any, Any]:
    """Items put into one batch: inputs, and targets or None."""
    try:
        batch = collate(items)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"the rows of the dataset cannot be put into one batch ({error}): where they differ in length, give "
            "the net a function that pads them, iterator_train__collate_fn and iterator_valid__collate_fn; where each "
            "is a batch of rows, pass them within DataLoader(rows, batch_size=None)"
        ) from error
    return pair_of(batch)
