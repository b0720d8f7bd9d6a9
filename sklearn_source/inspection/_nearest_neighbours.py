"""Rows that lie close to each other and are labelled differently."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.spatial import KDTree
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import Bunch

_NEAR_DUPLICATE = 0.1  # of the usual distance to the nearest row: two rows closer than that are near duplicates

_MOST_DIMENSIONS = 14  # from which on a tree leaves out next to nothing, and all pairs of rows are compared
_QUERIES = 1 << 16  # rows asked about together


def row_vectors(X, representation, n_train):
    """Vectors to measure distances of rows in, (n_train, d): the representation, else X itself, else None.

    X serves where it is numbers, as an array, a frame or sparse; other dimensions than the first are flattened.
    """
    if representation is None:
        X = X.to_numpy() if hasattr(X, "iloc") else X
        if sparse.issparse(X):
            return X.tocsr()
        X = np.asarray(X.numpy(force=True)) if hasattr(X, "numpy") else X
        if not isinstance(X, np.ndarray) or X.dtype.kind not in "fiub" or X.ndim < 2:
            return None
        return X.reshape(len(X), -1)
    try:
        vectors = np.asarray(representation)
    except ValueError as error:
        raise ValueError(f"expected representation as numbers of shape ({n_train}, n_features) ({error})") from error
    if (
        vectors.dtype.kind not in "fiub"
        or vectors.ndim != 2
        or len(vectors) != n_train
        or not np.isfinite(vectors).all()
    ):
        raise ValueError(
            f"expected representation as finite numbers of shape ({n_train}, n_features), got {vectors.dtype} of shape "
            f"{vectors.shape}"
        )
    return vectors


def neighbour_disagreement(vectors, target, is_classification, n_neighbors):
    """Compare targets of rows with those of the nearest rows.

    Parameters
    ----------
    vectors : ndarray or sparse of shape (n, d)
        In which distances are measured.
    target : ndarray of shape (n,) or (n, n_outputs)
        Classes as integers, or numbers.
    is_classification : bool
        Whether targets are classes.
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
        near_duplicate : ndarray of int, shape (n,)
            The nearest near duplicate of another class, -1 where there is none or targets are numbers.
    """
    n = len(target)
    n_neighbors = min(n_neighbors, n - 1)
    distances, index = nearest_others(vectors, n_neighbors)
    neighbour_targets = target[index]
    near_duplicate = np.full(n, -1)
    if not is_classification:
        mean = neighbour_targets.mean(axis=1)
        scale = np.maximum(target.std(axis=0), np.finfo(float).tiny)
        distance = np.abs(target - mean) / scale
        return Bunch(disagreement=distance.reshape(n, -1).max(axis=1), majority=mean, near_duplicate=near_duplicate)
    differs = neighbour_targets != target[:, None]
    counts = np.zeros((n, int(target.max()) + 1), dtype=np.int64)
    np.add.at(counts, (np.arange(n)[:, None], neighbour_targets), 1)
    near = differs & (distances <= _NEAR_DUPLICATE * np.median(distances[:, 0]))
    near_duplicate[near.any(axis=1)] = index[near.any(axis=1), near.argmax(axis=1)[near.any(axis=1)]]
    return Bunch(disagreement=differs.mean(axis=1), majority=counts.argmax(axis=1), near_duplicate=near_duplicate)


def nearest_others(vectors, n_neighbors):
    """Distances to the nearest other rows, ascending, and which these are: both (n, n_neighbors).

    In few dimensions by a tree whose leaves are asked about one after the other: what one row's search reads, the next
    row's reads again. In more dimensions all pairs of rows are compared, the square of their number.
    """
    n, n_dimensions = vectors.shape
    if sparse.issparse(vectors) or n_dimensions > _MOST_DIMENSIONS or 2 * n_neighbors >= n:
        return NearestNeighbors(n_neighbors=n_neighbors).fit(vectors).kneighbors()
    tree = KDTree(vectors, leafsize=32)
    distances, index = np.empty((n, n_neighbors)), np.empty((n, n_neighbors), dtype=np.intp)
    for start in range(0, n, _QUERIES):
        rows = tree.indices[start : start + _QUERIES]
        there, found = tree.query(tree.data[rows], k=n_neighbors + 1)
        others = found != rows[:, None]
        others[others.all(1), -1] = False  # of so many copies that the row itself is not among them
        distances[rows] = there[others].reshape(len(rows), -1)
        index[rows] = found[others].reshape(len(rows), -1)
    return distances, index
