"""Fingerprints to recognise rows by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy import sparse

from ._multiple_inputs import has_multiple_inputs
from ._table_hashes import hash_table, named_hashes, pair_hashes
from ._yielded_rows import yielded_hashes


def row_hashes(
    X: Any, y: Any = None, *, as_skorch: bool = False, sample: bool = False, exact: bool = False
) -> np.ndarray | None:
    """Fingerprint each row of `(X, y)`, whatever container holds it.

    Values are compared, not types: floats go through float32 (so float32 and float64 copies agree, and integers
    agree with the floats that equal them), ``-0.0`` equals ``0.0``, every NaN is the same NaN, and ``(n,)`` agrees
    with ``(n, 1)``. The order of the columns matters; the order of the rows only permutes the result.

    Parameters
    ----------
    X : array, tensor, DataFrame, sparse matrix, dict or list of these, or Dataset
        The rows as given to ``net.fit``. ``TensorDataset``, ``skorch.dataset.Dataset`` and ``Subset`` of them are
        opened and agree with the arrays they hold; of any other, all rows are read where that is cheap.
    y : same kinds as X, optional
        The targets.
    as_skorch : bool, default=False
        Take a list of arrays as inputs, as ``net.fit`` does, also where these are vectors; see :func:`count_rows`.
    sample : bool, default=False
        Of a Dataset too large to be read, look at a few rows, always the same: the others have the fingerprint 0.
    exact : bool, default=False
        Tell rows of float64 apart that are one in float32: what a cache is keyed by.

    Returns
    -------
    hashes : ndarray of uint64, shape (n,), or None
        None when the rows cannot be hashed cheaply (a large custom ``Dataset``, or one whose rows change at each
        reading; arrays of text, other objects). Two different rows share a fingerprint with a probability of about
        2**-64.

    Notes
    -----
    One pass over the data, about 0.2 s for 100,000 x 784 float32, with temporary memory of under a few MB.
    """
    hash_one = _Hasher(exact)
    if isinstance(X, torch.utils.data.Dataset):
        hashes, has_targets = _hash_dataset(X, hash_one)
        if hashes is None:
            hashes, has_targets = yielded_hashes(X, hash_one, sample=sample)
        if has_targets:
            y = None  # skorch trains on the targets of the dataset: y only serves its train_split
    else:
        hashes = hash_one(X, as_skorch)
    return hashes if y is None else pair_hashes(hashes, hash_one(y, as_skorch))


def exact_row_hashes(X: Any, y: Any = None, *, as_skorch: bool = False) -> np.ndarray | None:
    """:func:`row_hashes` of every bit, of rows that float32 cannot hold.

    Parameters
    ----------
    X, y, as_skorch
        As there.

    Returns
    -------
    hashes : ndarray of uint64, shape (n,), or None
        None where float32 holds all numbers, as it holds most: :func:`row_hashes` then tells everything. A second pass
        over the data, where there is float64 among it.
    """
    if not (_has_float64(X) or _has_float64(y)):
        return None
    rounded, exact = (row_hashes(X, y, as_skorch=as_skorch, exact=bits) for bits in (False, True))
    return None if rounded is None or exact is None or np.array_equal(rounded, exact) else exact


def _has_float64(data):
    """Whether there are floats in more than 32 bits in what shows its arrays."""
    if isinstance(data, Mapping):
        return any(map(_has_float64, data.values()))
    if isinstance(data, (list, tuple)):
        return any(map(_has_float64, data)) if data and hasattr(data[0], "ndim") else _is_float64(data)
    if isinstance(data, torch.utils.data.Subset):
        return _has_float64(data.dataset)
    if isinstance(data, torch.utils.data.Dataset):
        return any(
            map(_has_float64, (getattr(data, "X", None), getattr(data, "y", None), *getattr(data, "tensors", ())))
        )
    if hasattr(data, "dtypes"):
        return any(str(kind) == "float64" for kind in np.atleast_1d(data.dtypes))
    return str(getattr(data, "dtype", "")) in ("float64", "torch.float64", "longdouble", "float128")


def _is_float64(rows):
    """Whether a list of rows becomes an array of float64."""
    try:
        return np.asarray(rows[:1]).dtype == np.float64
    except ValueError:
        return False


def hash_batch(tree: Any) -> np.ndarray | None:
    """Fingerprints of a batch of inputs, or of targets, as an iterator gives it: those of the same rows elsewhere."""
    return _Hasher()(tree, as_skorch=True)


def _hash_dataset(dataset, hash_one):
    """Fingerprints of a dataset that shows its arrays, and whether targets are among them."""
    if isinstance(dataset, torch.utils.data.Subset):
        base, has_targets = _hash_dataset(dataset.dataset, hash_one)
        return (None if base is None else base[np.asarray(dataset.indices, dtype=np.int64)]), has_targets
    if isinstance(dataset, torch.utils.data.TensorDataset):
        *inputs, last = dataset.tensors
        if not inputs:
            return hash_one(last), False
        return pair_hashes(hash_one(inputs[0] if len(inputs) == 1 else tuple(inputs)), hash_one(last)), True
    if hasattr(dataset, "X") and hasattr(dataset, "y"):  # skorch.dataset.Dataset
        hashes = hash_one(dataset.X, True)
        return (hashes, False) if dataset.y is None else (pair_hashes(hashes, hash_one(dataset.y, True)), True)
    return None, False


class _Hasher:
    """Fingerprints of one container, None where it cannot be read cheaply.

    Parameters
    ----------
    exact : bool
        As in :func:`row_hashes`.
    """

    def __init__(self, exact=False):
        self._exact = exact

    def __call__(self, data, as_skorch=False):
        if isinstance(data, Mapping):
            return named_hashes(data, lambda value: self(value, as_skorch))
        if _are_inputs(data, as_skorch):
            return self({str(position): part for position, part in enumerate(data)}, as_skorch)
        if hasattr(data, "iloc") or hasattr(data, "to_numpy"):
            return self._of_frame(data)
        if sparse.issparse(data):
            return hash_table(data.tocsr(), lambda rows: rows.toarray(), self._exact)
        try:
            if isinstance(data, torch.Tensor):
                data = data.detach().cpu()
                # NumPy has no bfloat16.
                data = data.float() if data.is_floating_point() and data.dtype != torch.float64 else data
            array = np.asarray(data)
            if array.dtype == object:
                array = array.astype(np.float64)
        except (TypeError, ValueError):
            return None
        if array.dtype.kind not in "buif" or array.ndim == 0:
            return None
        table = array.reshape(len(array), -1) if len(array) else array.reshape(0, 1)
        return hash_table(table, np.asarray, self._exact)

    def _of_frame(self, frame):
        """A pandas (or alike) frame: its columns side by side, so that it agrees with the array of its values."""
        if getattr(frame, "ndim", 2) == 1:
            return self(frame.to_numpy())
        columns = [np.asarray(frame[name].to_numpy()) for name in frame.columns]
        if not columns or any(column.dtype.kind not in "buif" for column in columns):
            return None
        return hash_table(np.column_stack(columns), np.asarray, self._exact)


def _are_inputs(data, as_skorch):
    """Whether a tuple or list is one array for each input."""
    if isinstance(data, tuple) or as_skorch and isinstance(data, list):
        return bool(data) and all(getattr(part, "ndim", 0) >= 1 for part in data)
    return has_multiple_inputs(data)
