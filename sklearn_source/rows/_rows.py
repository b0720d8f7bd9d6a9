"""Rows of a data set, a batch at a time, as the net itself would read them."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Number

import numpy as np
import torch
from scipy import sparse
from skorch.dataset import Dataset, get_len
from torch.utils.data import IterableDataset, TensorDataset, default_collate

from ..utils._tree import map_tensors
from ._tensors import check_numbers, pick, tensors


def prepare_rows(net, X, y=None, *, device, dtype, integer_targets=None):
    """Validated rows of what a skorch net's ``fit`` takes. See :meth:`Network.prepare`.

    Parameters
    ----------
    net : skorch.NeuralNet
        Asked for ``get_dataset`` and the ``collate_fn`` of its iterators.
    X, y
        As in ``fit``.
    device : torch.device
    dtype : torch.dtype
        What floating-point inputs and targets become.
    integer_targets : torch.dtype, optional
        What integer targets become.

    Returns
    -------
    Rows
    """
    if X is None:
        raise ValueError("expected data in X, got None")
    given = isinstance(X, torch.utils.data.Dataset)
    if not given:
        X, y = _dense_lists(X), _dense_lists(y)
        _check_lengths(X, y)
    dataset = net.get_dataset(X, y)
    if isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise TypeError(
            f"expected a dataset with length and item access, got a {type(dataset).__name__}: rows of a stream cannot "
            "be named"
        )
    if len(dataset) == 0:
        raise ValueError("expected at least one row, got X with 0 rows")
    options = {"device": device, "dtype": dtype, "integer_targets": integer_targets}
    collate = net.get_params_for("iterator_valid").get("collate_fn")
    collate = collate or net.get_params_for("iterator_train").get("collate_fn")
    plain = _plain_parts(dataset) if collate is None else None
    if plain is not None:
        rows = ArrayRows(*plain, len(dataset), **options)
    else:
        rows = DatasetRows(dataset, collate or default_collate, **options)
    if given and y is not None and not rows.has_y:
        raise ValueError("X is a dataset without targets, and beside a dataset y is ignored: put y into the dataset")
    return rows


class Rows:
    """Rows of a data set on a network's device, floats in its dtype. Made by :meth:`Network.prepare`.

    Attributes
    ----------
    n_features : int or None
        Width of X where it is one 2-D array.
    has_y : bool
        Whether batches come with targets.
    """

    n_features, has_y = None, True

    def __init__(self, n_rows, *, device, dtype, integer_targets):
        self._n_rows, self._device, self._dtype, self._integers = n_rows, device, dtype, integer_targets

    def __len__(self):
        return self._n_rows

    def batch(self, indices):
        """Rows by slice or integer indices (as in numpy).

        Returns
        -------
        x : Tensor, or dict or list of Tensor
        y : the same, or None where there are no targets
        """
        raise NotImplementedError

    def targets(self, indices):
        """Only the targets of :meth:`batch`."""
        return self.batch(indices)[1]

    def _index(self, indices):
        if isinstance(indices, slice):
            return indices
        index = np.asarray(indices.cpu() if isinstance(indices, torch.Tensor) else indices)
        if index.dtype == bool:
            if len(index) != len(self):
                raise IndexError(f"expected a mask of {len(self)} rows, got {len(index)}")
            index = np.flatnonzero(index)
        index = index.reshape(-1).astype(np.int64, casting="same_kind" if index.size else "unsafe")
        if index.size and not (-len(self) <= index.min() and index.max() < len(self)):
            raise IndexError(f"expected row indices below {len(self)}, got {index.min()} to {index.max()}")
        return np.where(index < 0, index + len(self), index)

    def _move(self, tree, integers=None):
        def move(tensor):
            kind = self._dtype if tensor.is_floating_point() else integers
            return tensor.to(device=self._device, dtype=None if tensor.is_complex() else kind)

        return map_tensors(move, tree)


class ArrayRows(Rows):
    """Rows sliced from arrays a whole batch at a time."""

    def __init__(self, X, y, n_rows, **options):
        super().__init__(n_rows, **options)
        for name, tree in (("X", X), ("y", y)):
            check_numbers(tree, name, self._dtype)
        self._X, self._y, self.has_y = X, y, y is not None
        if not isinstance(X, (dict, list)) and X.ndim == 2:
            self.n_features = int(X.shape[1])

    def batch(self, indices):
        index = self._index(indices)
        return self._move(pick(self._X, index)), self._move(pick(self._y, index), self._integers)

    def targets(self, indices):
        return self._move(pick(self._y, self._index(indices)), self._integers)


class DatasetRows(Rows):
    """Rows collated from the items of any map-style dataset."""

    def __init__(self, dataset, collate, **options):
        super().__init__(len(dataset), **options)
        self._dataset, self._collate = dataset, collate
        x, y = self._fetch([0])
        # skorch's Dataset gives torch.Tensor([0]) for a row without target, which is no target.
        dummy = getattr(dataset, "y", self) is None and isinstance(y, torch.Tensor) and y.shape == (1, 1)
        self.has_y = not (y is None or (dummy and y.is_floating_point() and not y.any()))
        if isinstance(x, torch.Tensor) and x.ndim == 2:
            self.n_features = x.shape[1]

    def batch(self, indices):
        index = self._index(indices)
        index = range(*index.indices(len(self))) if isinstance(index, slice) else index.tolist()
        x, y = self._fetch(list(index))
        x, y = self._move(tensors(x)), self._move(tensors(y), self._integers) if self.has_y else None
        for name, tree in (("X", x), ("y", y)):
            check_numbers(tree, name, self._dtype, where=f" (rows {index[0]} to {index[-1]})" if index else "")
        return x, y

    def _fetch(self, index):
        many = getattr(self._dataset, "__getitems__", None)
        items = many(index) if many else [self._dataset[i] for i in index]
        try:
            batch = self._collate(items)
        except (RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"the rows of the dataset cannot be put into one batch ({error}): where they differ in length, give "
                "the net a function that pads them, iterator_train__collate_fn and iterator_valid__collate_fn"
            ) from error
        if isinstance(batch, (torch.Tensor, np.ndarray, Mapping)):
            return batch, None  # queries may come without targets
        if not isinstance(batch, (tuple, list)) or len(batch) not in (1, 2):
            raise ValueError(
                "expected the dataset (after its collate_fn) to give pairs (X, y), as skorch does, got "
                + (f"{len(batch)} values" if isinstance(batch, (tuple, list)) else f"a {type(batch).__name__}")
            )
        return batch if len(batch) == 2 else (batch[0], None)


def _plain_parts(dataset):
    """X and y of a dataset that only indexes arrays, as trees of arrays; None where it does more than that."""
    if type(dataset) is TensorDataset and len(dataset.tensors) in (1, 2):
        return (*dataset.tensors, None)[:2]
    if type(dataset) is not Dataset:
        return None
    X, y = _tree(dataset.X), _tree(dataset.y)
    return None if X is None or (y is None and dataset.y is not None) else (X, y)


def _tree(data):
    """The same data as a dict or list of arrays, or None where it is nothing so plain."""
    if isinstance(data, (np.ndarray, torch.Tensor)):
        return data
    if sparse.issparse(data):
        return data.tocsr()
    if hasattr(data, "iloc"):
        if data.ndim == 1:
            return data.to_numpy()
        return {key: data[key].to_numpy().reshape(-1, 1) for key in data}  # one input per column, as skorch does
    if isinstance(data, Mapping):
        data = {key: _tree(value) for key, value in data.items()}
        return data if data and all(_is_leaf(value) for value in data.values()) else None
    if isinstance(data, (list, tuple)) and data:
        data = [_tree(value) for value in data]
        return None if any(value is None for value in data) else data
    return None


def _is_leaf(value):
    return isinstance(value, (np.ndarray, torch.Tensor)) or sparse.issparse(value)


def _dense_lists(data):
    """A plain list of numbers as an array; everything else as it came."""
    if isinstance(data, (list, tuple)) and data and all(isinstance(v, (Number, str, np.generic)) for v in data):
        return np.asarray(data)
    return data


def _check_lengths(X, y):
    try:
        n = get_len(X)
    except ValueError:
        raise ValueError("expected arrays of the same number of rows in X, got different numbers") from None
    if y is None:
        return
    try:
        n_y = get_len(y)
    except ValueError:
        raise ValueError("expected arrays of the same number of rows in y, got different numbers") from None
    if n != n_y:
        raise ValueError(f"expected as many targets as rows, got X with {n} rows and y with {n_y}")
