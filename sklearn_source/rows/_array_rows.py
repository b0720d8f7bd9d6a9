"""Rows of arrays, sliced a whole batch at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import sparse
from skorch.dataset import Dataset
from torch.utils.data import TensorDataset

from ._rows import Rows
from ._tensors import check_numbers, take_tensors


class ArrayRows(Rows):
    """Rows sliced from arrays a whole batch at a time."""

    def __init__(self, X: Any, y: Any, n_rows: int, **options: Any):
        super().__init__(n_rows, **options)
        for name, tree in (("X", X), ("y", y)):
            check_numbers(tree, name, self._dtype)
        self._X, self._y, self.has_y = X, y, y is not None
        if not isinstance(X, (dict, list)) and X.ndim == 2:
            self.n_features = int(X.shape[1])

    def batch(self, indices: slice | ArrayLike) -> tuple[Any, Any]:
        index = self._index(indices)
        return self._move(take_tensors(self._X, index)), self._move(take_tensors(self._y, index), self._integers)

    def targets(self, indices: slice | ArrayLike) -> Any:
        return self._move(take_tensors(self._y, self._index(indices)), self._integers)


def arrays_of(dataset: Any) -> tuple[Any, Any] | None:
    """X and y of a dataset that only indexes arrays, as trees of arrays; None where it does more than that."""
    if type(dataset) is TensorDataset and len(dataset.tensors) in (1, 2):
        return dataset.tensors[0], dataset.tensors[1] if len(dataset.tensors) == 2 else None
    if type(dataset) is not Dataset:
        return None
    X, y = _tree_of_arrays(dataset.X), _tree_of_arrays(dataset.y)
    return None if X is None or (y is None and dataset.y is not None) else (X, y)


def _tree_of_arrays(data):
    """The same data as a dict or list of arrays, or None where it is something else."""
    if isinstance(data, (np.ndarray, torch.Tensor)):
        return data
    if sparse.issparse(data):
        return data.tocsr()
    if hasattr(data, "iloc"):
        if data.ndim == 1:
            return data.to_numpy()
        return {key: data[key].to_numpy().reshape(-1, 1) for key in data}  # one input per column, as skorch does
    if isinstance(data, Mapping):
        data = {key: _tree_of_arrays(value) for key, value in data.items()}
        return data if data and all(_is_array(value) for value in data.values()) else None
    if isinstance(data, (list, tuple)) and data:
        data = [_tree_of_arrays(value) for value in data]
        return None if any(value is None for value in data) else data
    return None


def _is_array(value):
    return isinstance(value, (np.ndarray, torch.Tensor)) or sparse.issparse(value)
