"""Scores by fitted estimators, a part of the queries at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from contextvars import ContextVar

import numpy as np
import torch
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from ..base import NetworkAttribution
from ..rows import count_rows, take_rows
from ..utils._config import bytes_for

_kept = ContextVar("kept", default=None)


def score_chunks(estimator, X, y=None):
    """Yield (slice of queries, their scores (n, n_train) as float64), in order.

    Queries that cannot be sliced, in lists and tuples, come at once.
    """
    kept = _kept.get()
    if kept is None:
        return _computed(estimator, X, y)
    return kept.chunks(estimator, X, y)


@contextlib.contextmanager
def keep_scores():
    """As long as the context lasts, scores that fit in memory are asked of an estimator once.

    Functions that each go through the scores of the same queries, the same objects X and y, then share one pass.
    """
    token = _kept.set(_KeptScores())
    try:
        yield
    finally:
        _kept.reset(token)


class _KeptScores:
    """Scores of queries, by the estimator and the objects that hold the queries."""

    def __init__(self):
        self._by_question = []  # (estimator, X, y) -> scores; the question is held, so that no other takes its place

    def chunks(self, estimator, X, y):
        for question, scores in self._by_question:
            if all(given is known for given, known in zip((estimator, X, y), question)):
                yield from _slices(scores)
                return
        n_query = count_rows(X)
        fits = n_query is not None and 4 * n_query * estimator.n_train_ <= bytes_for("scores")
        parts = []
        for queries, scores in _computed(estimator, X, y):
            if fits:
                rounded = scores.astype(np.float32)
                parts.append(rounded if (rounded == scores).all() else scores)
            yield queries, scores
        if parts:
            self._by_question.append(((estimator, X, y), np.concatenate(parts)))


def check_attribution(estimator):
    """The estimator itself, if it is a fitted attribution method; else a TypeError or NotFittedError."""
    if not isinstance(estimator, BaseEstimator) or not all(hasattr(estimator, n) for n in ("transform", "fit")):
        raise TypeError(f"expected a fitted attribution method, got a {type(estimator).__name__}")
    check_is_fitted(estimator)
    if not hasattr(estimator, "n_train_"):
        raise TypeError(f"expected a fitted attribution method, got a {type(estimator).__name__}")
    return estimator


def check_queries(estimator, X, y=None):
    """Raise what ``transform`` of a method of networks would of these queries, before anything is computed."""
    method = getattr(estimator, "members_", [estimator])[0]
    if isinstance(method, NetworkAttribution):
        method._query_rows(X, y)


def _slices(scores):
    size = max(1, bytes_for("scores") // (8 * scores.shape[1]))
    for start in range(0, len(scores), size):
        queries = slice(start, min(start + size, len(scores)))
        yield queries, scores[queries].astype(np.float64)


def _computed(estimator, X, y):
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


def _scores(estimator, X, y):
    """Scores (n_query, n_train) as float64, which are refused where they are not finite."""
    scores = np.asarray(estimator.transform(X) if y is None else estimator.transform(X, y), dtype=np.float64)
    if not np.isfinite(scores).all():
        raise ValueError(f"expected finite scores, got NaN or infinity from {type(estimator).__name__}")
    return scores


def _can_slice(data):
    """Whether some of the rows can be taken as a container of the same kind."""
    if isinstance(data, Mapping):
        return all(map(_can_slice, data.values()))
    arrays = np.ndarray, torch.Tensor, torch.utils.data.Dataset
    return isinstance(data, arrays) or sparse.issparse(data) or hasattr(data, "iloc")
