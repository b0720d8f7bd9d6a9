"""Choosing a method and its settings by ground truth: what GridSearchCV and its kin need for attribution."""

from __future__ import annotations

import copy
import warnings
from math import isqrt
from numbers import Integral

import joblib
import numpy as np
from sklearn.model_selection import BaseCrossValidator
from sklearn.utils import Bunch, check_random_state
from sklearn.utils.validation import check_is_fitted

from .metrics import linear_datamodeling_score
from .metrics._checks import check_truth
from .trajectory import row_hashes
from .utils._compat import num_samples, safe_indexing

__all__ = ["FullTrainingSet", "held_out_score", "make_lds_scorer"]


class FullTrainingSet(BaseCrossValidator):
    """Cross-validation that fits on all training rows every time, and folds the queries.

    An attribution explains one training, whose rows must all be there; what has to differ between choosing a setting
    and reporting its score are the queries. They are not among the rows that a splitter deals out: a scorer by
    :func:`make_lds_scorer` holds them, and scores on the fold that the split names.

    Parameters
    ----------
    n_splits : int, default=5
        Folds of the queries; 1: all of them at once. Each fold fits anew, so pass ``memory=`` to methods that have it.

    Notes
    -----
    A fold reaches the scorer through the only thing of a split that ever does, the test rows: those of fold f of n are
    the first training row, n(n - 1)/2 + f + 1 times over. Nothing but a scorer by :func:`make_lds_scorer` can make
    sense of them.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_source.model_selection import FullTrainingSet
    >>> for train, test in FullTrainingSet(2).split(np.zeros((4, 1))):
    ...     print(train, test)
    [0 1 2 3] [0 0]
    [0 1 2 3] [0 0 0]
    """

    def __init__(self, n_splits=5):
        if not isinstance(n_splits, Integral) or isinstance(n_splits, bool) or n_splits < 1:
            raise ValueError(f"n_splits must be an integer >= 1, got {n_splits!r}")
        self.n_splits = int(n_splits)

    def split(self, X, y=None, groups=None):
        """All rows to fit on, and test rows that name a fold of the queries.

        Parameters
        ----------
        X : array-like of shape (n_train, ...)
        y, groups : ignored

        Yields
        ------
        train : ndarray of shape (n_train,), int
            Every row, in order.
        test : ndarray of int
        """
        rows = np.arange(num_samples(X))
        for fold in range(self.n_splits):
            yield rows.copy(), np.zeros(self.n_splits * (self.n_splits - 1) // 2 + fold + 1, dtype=np.int64)

    def get_n_splits(self, X=None, y=None, groups=None):
        """Number of folds.

        Parameters
        ----------
        X, y, groups : ignored

        Returns
        -------
        n_splits : int
        """
        return self.n_splits

    def __repr__(self):
        return f"FullTrainingSet(n_splits={self.n_splits})"


def make_lds_scorer(truth, X_query=None, y_query=None, *, queries=None, metric=None, random_state=0):
    """A scorer for GridSearchCV and its kin: how well an attribution agrees with retraining.

    Parameters
    ----------
    truth : Retraining
        Of the training rows that the search is fitted on, in the same order.
    X_query : optional
        The queries that the truth was measured on, all of them and in that order, as the estimator's ``transform``
        takes them; arrays, frames, or whatever else scikit-learn can pick rows of. None: ``truth.X_query`` (and
        ``truth.y_query``), where it has them.
    y_query : array-like of shape (n_query,), optional
        Their targets. Needed where the truth was measured with targets; better given for classifiers trained anew by
        the search, whose predicted classes may differ from those that the truth took.
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

    Notes
    -----
    In ``HalvingGridSearchCV`` name a parameter as ``resource``: fewer rows, its default, would be another training.

    The mean score of the setting that was best on the same queries is too good. :func:`held_out_score` has an
    honest one from a finished search at no cost; scorers of disjoint ``queries`` are the other way.

    See Also
    --------
    FullTrainingSet : The splitter that goes with it.
    held_out_score : Score of the setting chosen, on queries that did not choose.

    Examples
    --------
    >>> search = GridSearchCV(
    ...     SourceAttribution(FrozenEstimator(net), memory="cache"), {"n_segments": [1, 2, 3, 6]},
    ...     scoring=make_lds_scorer(truth, X_query), cv=FullTrainingSet(),
    ... ).fit(X_train, y_train)  # doctest: +SKIP
    >>> held_out_score(search).score  # doctest: +SKIP
    """
    check_truth(truth)
    if X_query is None:
        X_query, y_query = getattr(truth, "X_query", None), getattr(truth, "y_query", y_query)
        if X_query is None:
            raise ValueError("this truth does not hold the queries it was measured on: pass X_query")
    n_query = np.asarray(truth.outputs).shape[2]
    for name, given in (("X_query", X_query), ("y_query", y_query)):
        if given is not None and num_samples(given) != n_query:
            raise ValueError(
                f"expected the {n_query} queries of the truth, got {name} of {num_samples(given)} rows: pass the "
                "queries given to the retraining, all of them and in the same order"
            )
    settings = getattr(truth, "settings", None) or {}
    if settings.get("query_labels") == "given" and y_query is None:
        raise ValueError("the truth was measured with targets of the queries: pass the same y_query")
    if metric is not None and not callable(metric):
        raise ValueError(f"expected metric(scores, truth) as a callable, got {metric!r}")
    chosen = _query_indices(queries, n_query)
    order = check_random_state(random_state).permutation(len(chosen))
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
            raise ValueError(f"{len(self._queries)} queries cannot make {n_splits} folds: take fewer splits")
        return np.sort(np.array_split(self._queries, n_splits)[fold])

    def __call__(self, estimator, X, y=None):
        queries = self.fold(*_named_fold(X))
        self._check_measurement(estimator)
        X_query, y_query = (None if a is None else safe_indexing(a, queries) for a in (self._X, self._y))
        scores = np.asarray(_transform(estimator, X_query, y_query))
        n_train = np.asarray(self._truth.masks).shape[1]
        if scores.ndim != 2 or scores.shape[1] != n_train:
            raise ValueError(
                f"the truth is of {n_train} training rows, the estimator gave scores of shape {scores.shape}: fit it "
                "on all of them, by cv=FullTrainingSet() (and in HalvingGridSearchCV by a parameter as resource)"
            )
        truth = copy.copy(self._truth)
        truth.outputs = np.asarray(truth.outputs)[:, :, queries]
        if self._metric is None:  # no interval is looked at: the fewest resamples will do
            return linear_datamodeling_score(scores, truth, n_bootstrap=2).score
        found = self._metric(scores, truth)
        return float(getattr(found, "score", found))

    def _check_measurement(self, estimator):
        last = _last_step(estimator)
        wanted = getattr(self._truth, "measurement", None)
        found = getattr(getattr(last, "_measure", None), "name", None)
        if wanted is not None and found is not None and hasattr(last, "measurement") and found != wanted:
            raise ValueError(
                f"the truth measured {wanted!r}, the estimator attributes {found!r}: give both the same measurement"
            )

    def __repr__(self):
        metric = "" if self._metric is None else f", metric={self._metric!r}"
        return f"make_lds_scorer({self._truth!r}, {len(self._queries)} queries{metric})"


def held_out_score(search):
    """What a search would have reported had it been told only of queries that did not choose.

    For each fold in turn, the setting that is best on the mean of the other folds is scored on that fold. Because each
    fold fits on the same rows, nothing has to be fitted for it: this is nested cross-validation over the queries.

    Parameters
    ----------
    search : GridSearchCV or RandomizedSearchCV
        Fitted with ``cv=FullTrainingSet(n)``, n at least 2; of several metrics the one that ``refit`` names.

    Returns
    -------
    result : Bunch
        score : float
            Mean over folds.
        per_fold : ndarray of shape (n_splits,)
            On each fold, of the setting that the others chose.
        chosen : list of dict
            The setting chosen for each fold. Where they differ, the queries do not tell the settings apart.
        best_score : float
            The search's own, of the best setting on the queries that chose it: never below `score`.

    Raises
    ------
    ValueError
        If the search has one fold, or dropped settings on the way, as halving does.
    """
    check_is_fitted(search, "cv_results_")
    results = search.cv_results_
    if "iter" in results:
        raise ValueError(
            "a halving search dropped settings by the scores of all folds: hold queries back by make_lds_scorer(..., "
            "queries=)"
        )
    name = search.refit if getattr(search, "multimetric_", False) else "score"
    if not isinstance(search.cv, FullTrainingSet):
        raise ValueError(f"expected a search with cv=FullTrainingSet(), got cv={search.cv!r}")
    if search.n_splits_ < 2 or f"split0_test_{name}" not in results:
        raise ValueError("expected a search with two folds or more, and refit= as the name of one of several metrics")
    scores = np.array([results[f"split{f}_test_{name}"] for f in range(search.n_splits_)], dtype=float)
    usable = np.flatnonzero(np.isfinite(scores).all(axis=0))
    if not len(usable):
        raise ValueError("no setting of this search has a score on every fold")
    if len(usable) < scores.shape[1]:
        warnings.warn(f"{scores.shape[1] - len(usable)} settings without a score are left out", stacklevel=2)
    others = scores.sum(axis=0) - scores
    best = usable[others[:, usable].argmax(axis=1)]
    per_fold = scores[np.arange(len(scores)), best]
    return Bunch(
        score=float(per_fold.mean()),
        per_fold=per_fold,
        chosen=[results["params"][i] for i in best],
        best_score=float(scores[:, usable].mean(axis=0).max()),
    )


def _query_indices(queries, n_query):
    if queries is None:
        return np.arange(n_query)
    found = np.asarray(queries)
    if found.dtype == bool and found.shape == (n_query,):
        found = np.flatnonzero(found)
    if found.ndim != 1 or not found.size or found.dtype.kind not in "iu" or found.min() < 0 or found.max() >= n_query:
        raise ValueError(f"expected queries as indices from 0 to {n_query - 1} or a mask, got {queries!r}")
    if len(np.unique(found)) < len(found):
        raise ValueError("queries holds an index twice")
    return found.astype(np.int64)


def _named_fold(X):
    """(fold, n_splits) that test rows of :class:`FullTrainingSet` name; any others: all queries, (0, 1)."""
    n = num_samples(X)
    hashes = row_hashes(X)
    if hashes is None:
        first = joblib.hash(safe_indexing(X, [0]))
        same = all(joblib.hash(safe_indexing(X, [i])) == first for i in range(1, n))
    else:
        same = bool((hashes == hashes[0]).all())
    if not same:
        return 0, 1
    n_splits = (isqrt(8 * n - 7) + 1) // 2  # the largest with n_splits (n_splits - 1) / 2 < n
    return n - n_splits * (n_splits - 1) // 2 - 1, n_splits


def _last_step(estimator):
    """The attribution at the end of searches and pipelines."""
    while True:
        if hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        elif hasattr(estimator, "steps"):
            estimator = estimator[-1]
        else:
            return estimator


def _transform(estimator, X, y):
    """``estimator.transform(X, y)``, also where searches and pipelines take no y."""
    if y is None:
        return estimator.transform(X)
    estimator = getattr(estimator, "best_estimator_", estimator)
    if hasattr(estimator, "steps"):
        return _transform(estimator[-1], estimator[:-1].transform(X) if len(estimator) > 1 else X, y)
    return estimator.transform(X, y)
