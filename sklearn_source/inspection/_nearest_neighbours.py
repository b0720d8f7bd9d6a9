"""Rows that lie close to each other and are labelled differently."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import Bunch

_NEAR = 0.1  # of the usual distance to the nearest row: two rows closer than that are near duplicates


def representation_of(X, representation, n_train):
    """Vectors to measure distances of rows in, (n_train, d); None where there are none to be had."""
    if representation is None:
        X = X.to_numpy() if hasattr(X, "iloc") else X
        if sparse.issparse(X):
            return X.tocsr()
        X = np.asarray(X.numpy(force=True)) if hasattr(X, "numpy") else X
        if not isinstance(X, np.ndarray) or X.dtype.kind not in "fiub" or X.ndim < 2:
            return None
        return X.reshape(len(X), -1)
    found = np.asarray(representation)
    if found.dtype.kind not in "fiub" or found.ndim != 2 or len(found) != n_train or not np.isfinite(found).all():
        raise ValueError(
            f"expected representation as finite numbers of shape ({n_train}, n_features), got {found.dtype} of shape "
            f"{found.shape}"
        )
    return found


def compare_with_neighbours(vectors, target, is_classification, n_neighbors):
    """How targets of rows compare with those of the nearest rows.

    Parameters
    ----------
    vectors : ndarray or sparse of shape (n, d)
    target : ndarray of shape (n,) or (n, n_outputs)
    is_classification : bool
    n_neighbors : int
        Fewer where there are fewer other rows.

    Returns
    -------
    result : Bunch
        disagreement : ndarray of shape (n,)
            Classes: the share of neighbours of another class. Numbers: the distance to the neighbours' mean, in
            standard deviations of all targets.
        majority : ndarray of shape (n,)
            The commonest class of the neighbours (the smallest of those), or their mean.
        twin : ndarray of int, shape (n,)
            The nearest near duplicate of another class, -1 where there is none or targets are numbers.
    """
    n = len(target)
    n_neighbors = min(n_neighbors, n - 1)
    distances, index = NearestNeighbors(n_neighbors=n_neighbors).fit(vectors).kneighbors()
    theirs = target[index]
    twin = np.full(n, -1)
    if not is_classification:
        mean = theirs.mean(axis=1)
        scale = np.maximum(target.std(axis=0), np.finfo(float).tiny)
        gap = np.abs(target - mean) / scale
        return Bunch(disagreement=gap.reshape(n, -1).max(axis=1), majority=mean, twin=twin)
    other = theirs != target[:, None]
    counts = np.zeros((n, int(target.max()) + 1), dtype=np.int64)
    np.add.at(counts, (np.arange(n)[:, None], theirs), 1)
    near = other & (distances <= _NEAR * np.median(distances[:, 0]))
    twin[near.any(axis=1)] = index[near.any(axis=1), near.argmax(axis=1)[near.any(axis=1)]]
    return Bunch(disagreement=other.mean(axis=1), majority=counts.argmax(axis=1), twin=twin)
