"""Scores by fitted estimators, a part of the queries at a time."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from ..rows import count_rows, take_rows
from ..utils._config import bytes_for


def score_chunks(estimator, X, y=None):
    """Yield (slice of queries, their scores (n, n_train) as float64), in order.

    Queries that cannot be sliced, in dicts or Datasets, come at once.
    """
    n_query = count_rows(X)
    size = max(1, bytes_for("scores") // (8 * estimator.n_train_))
    if n_query is None or n_query <= size or not _can_slice(X) or not (y is None or _can_slice(y)):
        scores = _scores(estimator, X, y)
        yield slice(0, len(scores)), scores
        return
    for start in range(0, n_query, size):
        queries = slice(start, min(start + size, n_query))
        index = np.arange(queries.start, queries.stop)
        yield queries, _scores(estimator, take_rows(X, index), None if y is None else take_rows(y, index))


def check_attribution(estimator):
    """The estimator itself, if it is a fitted attribution method; else a TypeError or NotFittedError."""
    if not isinstance(estimator, BaseEstimator) or not all(hasattr(estimator, n) for n in ("transform", "fit")):
        raise TypeError(f"expected a fitted attribution method, got a {type(estimator).__name__}")
    check_is_fitted(estimator)
    if not hasattr(estimator, "n_train_"):
        raise TypeError(f"expected a fitted attribution method, got a {type(estimator).__name__}")
    return estimator


def _scores(estimator, X, y):
    """Scores (n_query, n_train) as float64, which are refused where they are not finite."""
    scores = np.asarray(estimator.transform(X) if y is None else estimator.transform(X, y), dtype=np.float64)
    if not np.isfinite(scores).all():
        raise ValueError(f"expected finite scores, got NaN or infinity from {type(estimator).__name__}")
    return scores


def _can_slice(data):
    """Whether some of the rows can be taken as a container of the same kind."""
    return isinstance(data, np.ndarray) or sparse.issparse(data) or hasattr(data, "iloc")
