"""Rows of whatever a skorch net takes: how many, and some of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from scipy import sparse


def count(X):
    """Number of rows."""
    if isinstance(X, Mapping):
        return count(next(iter(X.values())))
    if _is_several(X):
        return count(X[0])
    return int(X.shape[0]) if hasattr(X, "shape") else len(X)


def take(X, index):
    """The rows `index` of anything that a skorch net takes: arrays, frames, dicts and tuples of these, Datasets, lists.

    Returns
    -------
    rows : frame, ndarray, list of str, or dict or tuple of these
    """
    index = np.asarray(index, dtype=np.int64)
    if hasattr(X, "iloc"):
        return X.iloc[index]
    if sparse.issparse(X):
        return X.tocsr()[index].toarray()
    if isinstance(X, torch.Tensor):
        return (X.float() if X.dtype == torch.bfloat16 else X)[index].numpy(force=True)
    if isinstance(X, np.ndarray):
        return X[index]
    if isinstance(X, Mapping):
        return {name: take(part, index) for name, part in X.items()}
    if _is_several(X):
        return tuple(take(part, index) for part in X)
    items = [X[int(i)] for i in index]
    if isinstance(X, torch.utils.data.Dataset):
        items = [item[0] if isinstance(item, tuple) else item for item in items]
    return _joined(items)


def _joined(items):
    if all(isinstance(item, str) for item in items):
        return list(items)
    return np.stack([item.numpy(force=True) if isinstance(item, torch.Tensor) else np.asarray(item) for item in items])


def _is_several(X):
    """Whether X is several inputs of the network, as skorch reads it."""
    return isinstance(X, tuple) or (isinstance(X, list) and X and all(getattr(part, "ndim", 0) >= 2 for part in X))


def one_row(X, position):
    """A single row of `X`, as something that the network reads as it does `X`."""
    if isinstance(X, Mapping):
        return {name: one_row(part, position) for name, part in X.items()}
    if _is_several(X):
        return type(X)(one_row(part, position) for part in X)
    if isinstance(X, torch.utils.data.Dataset):
        return torch.utils.data.Subset(X, [position])
    if hasattr(X, "iloc"):
        return X.iloc[[position]]
    return (X.tocsr() if sparse.issparse(X) else X)[position : position + 1]
