"""A scorer for scikit-learn's searches: agreement with retraining."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..metrics import check_truth, linear_datamodeling_score
from ..rows import take_rows
from ..utils._random import generator_of
from ._ground_truth import queries_of, scores_for
from ._splitter import named_fold


def make_lds_scorer(
    truth: Any,
    X_query: Any = None,
    y_query: ArrayLike | None = None,
    *,
    queries: ArrayLike | None = None,
    metric: Callable | None = None,
    random_state: int | np.random.RandomState | None = 0,
) -> Callable[..., float]:
    """A scorer for GridSearchCV and its kin: how well an attribution agrees with retraining.

    Read more in the :ref:`User Guide <model_selection>`.

    Parameters
    ----------
    truth : Retraining
        Of the training rows that the search is fitted on; in which order does not matter where the truth knows its
        rows (``row_hashes``), and it is the same for both else.
    X_query : optional
        The queries that the truth was measured on, all of them and in that order, as the estimator's ``transform``
        takes them (for a pipeline that scales: not scaled); arrays, frames, or whatever else scikit-learn can pick rows
        of. None: ``truth.X_query``, where it has them.
    y_query : array-like of shape (n_query,), optional
        Their targets. None: ``truth.y_query``. Needed where the truth was measured with targets; better given for
        classifiers trained anew by the search, whose predicted classes may differ from those that the truth took.
    queries : array-like of int, or bool of shape (n_query,), optional
        Score on these alone, and keep the others for reporting. By default all.
    metric : callable, default=None
        ``metric(scores, truth)`` gives a float (or a Bunch with ``score``), more is better; `truth` is then that of the
        fold's queries. None: the score of :func:`~sklearn_source.metrics.linear_datamodeling_score`.
    random_state : int, RandomState instance or None, default=0
        Deals the queries into folds.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y=None) -> float``, for ``scoring=``. `X` says which fold of the queries is meant, as
        :class:`FullTrainingSet` makes it; any other rows mean all queries, so that ``scorer(search, X_train)``
        scores a finished search. ``scorer.fold(f, n)`` gives the indices of the queries of fold f of n. Can be pickled
        if `metric` can.

    Raises
    ------
    ValueError
        If the queries do not fit the truth. When called: if the estimator was fitted on another number of rows, or
        measures something else than the truth (scikit-learn makes a warning and NaN of that, unless
        ``error_score="raise"``).

    See Also
    --------
    FullTrainingSet : The splitter that goes with it.
    held_out_score : Score of the setting chosen, on queries that did not choose.

    Notes
    -----
    In ``HalvingGridSearchCV`` name a parameter as ``resource``: fewer rows, its default, would be another training. It
    takes the name ``n_samples`` for rows; a parameter of that name can be the resource inside a pipeline.

    The mean score of the setting that was best on the same queries is too good. :func:`held_out_score` has an
    honest one from a finished search at no cost; scorers of disjoint ``queries`` are the other way.

    Examples
    --------
    >>> search = GridSearchCV(
    ...     SourceAttribution(FrozenEstimator(net), curvature=EKFAC(memory="cache")), {"n_segments": [1, 2, 3, 6]},
    ...     scoring=make_lds_scorer(truth, X_query), cv=FullTrainingSet(),
    ... ).fit(X_train, y_train)  # doctest: +SKIP
    >>> held_out_score(search).score  # doctest: +SKIP
    """
    check_truth(truth)
    X_query, y_query = queries_of(truth, X_query, y_query)
    n_query = np.asarray(truth.outputs).shape[2]
    if metric is not None and not callable(metric):
        raise ValueError(f"expected metric(scores, truth) as a callable, got {metric!r}")
    chosen = _query_indices(queries, n_query)
    order = generator_of(random_state).permutation(len(chosen))
    return _QueryScorer(truth, X_query, y_query, chosen[order], metric)


class _QueryScorer:
    """What :func:`make_lds_scorer` returns."""

    def __init__(self, truth, X_query, y_query, queries, metric):
        self._truth, self._X, self._y, self._queries, self._metric = truth, X_query, y_query, queries, metric

    def fold(self, fold, n_splits):
        """Indices of the queries of a fold, increasing: ndarray of int. Disjoint for the folds of one `n_splits`."""
        if not 0 <= fold < n_splits:
            raise ValueError(f"expected fold from 0 to {n_splits - 1}, got {fold}")
        if n_splits > len(self._queries):
            raise ValueError(
                f"expected at most as many folds as queries, which are {len(self._queries)}, got {n_splits}: "
                "take fewer splits"
            )
        return np.sort(np.array_split(self._queries, n_splits)[fold])

    def __call__(self, estimator, X, y=None):
        queries = self.fold(*named_fold(X))
        X_query, y_query = (None if a is None else take_rows(a, queries) for a in (self._X, self._y))
        scores = scores_for(self._truth, estimator, X_query, y_query)
        truth = copy.copy(self._truth)
        truth.outputs = np.asarray(truth.outputs)[:, :, queries]
        truth.X_query, truth.y_query = X_query, y_query
        if self._metric is None:  # no interval is looked at: the fewest resamples will do
            return linear_datamodeling_score(scores, truth, n_bootstrap=2).score
        result = self._metric(scores, truth)
        return float(getattr(result, "score", result))

    def __repr__(self):
        metric = "" if self._metric is None else f", metric={self._metric!r}"
        return f"make_lds_scorer({self._truth!r}, {len(self._queries)} queries{metric})"


def _query_indices(queries, n_query):
    """The queries to score on, as indices: ndarray of int64."""
    if queries is None:
        return np.arange(n_query)
    indices = np.asarray(queries)
    if indices.dtype == bool and indices.shape == (n_query,):
        indices = np.flatnonzero(indices)
    fits = indices.ndim == 1 and indices.size and indices.dtype.kind in "iu"
    if not fits or indices.min() < 0 or indices.max() >= n_query:
        raise ValueError(f"expected queries as indices from 0 to {n_query - 1} or a mask, got {queries!r}")
    if len(np.unique(indices)) < len(indices):
        raise ValueError("expected every index once in queries, got one twice: give a mask, or each once")
    return indices.astype(np.int64)
