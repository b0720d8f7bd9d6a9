"""Scores of an estimator, as a ground truth wants them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..rows import count_rows, match_truth_rows


def queries_of(truth: Any, X_query: Any = None, y_query: Any = None) -> tuple[Any, Any]:
    """The queries that a truth was measured on, and their targets: those given, else its own.

    Raises
    ------
    ValueError
        If there are none, other numbers of them, or no targets where the truth was measured with some.
    """
    X_query = getattr(truth, "X_query", None) if X_query is None else X_query
    y_query = getattr(truth, "y_query", None) if y_query is None else y_query
    if X_query is None:
        raise ValueError(
            "expected the queries that the truth was measured on, which it does not hold, got no X_query: pass X_query"
        )
    n_query = np.asarray(truth.outputs).shape[2]
    for name, given in (("X_query", X_query), ("y_query", y_query)):
        if given is not None and count_rows(given) != n_query:
            raise ValueError(
                f"expected the {n_query} queries of the truth, got {name} of {count_rows(given)} rows: pass the "
                "queries given to the retraining, all of them and in the same order"
            )
    if y_query is None and _settings(truth).get("query_labels") == "given":
        raise ValueError(
            "expected the targets of the queries, with which the truth was measured, got none: pass the same y_query"
        )
    return X_query, y_query


def scores_for(truth: Any, estimator: Any, X: Any, y: Any = None) -> np.ndarray:
    """Scores of some queries of a truth, a column for each training row of the truth in its order.

    Parameters
    ----------
    truth : Retraining
    estimator : fitted attribution method, or a pipeline or search that ends in one
    X, y
        The queries.

    Returns
    -------
    scores : ndarray of shape (n_query, n_train)

    Raises
    ------
    ValueError
        If the estimator measures something else than the truth, or was fitted on other rows.
    """
    last = _last_step(estimator)
    if isinstance(estimator, type) or not hasattr(last, "transform"):
        raise TypeError(f"expected a fitted attribution method, got {estimator!r}")
    _check_measurement(truth, last)
    scores = np.asarray(_transform(estimator, X, y))
    n_train = np.asarray(truth.masks).shape[1]
    if scores.ndim != 2 or scores.shape[1] != n_train:
        raise ValueError(
            f"expected scores of the {n_train} training rows of the truth, got shape {scores.shape} of the "
            "estimator: fit it on all of them, by cv=FullTrainingSet() (and in HalvingGridSearchCV by a parameter as "
            "resource)"
        )
    places = match_truth_rows(truth, getattr(last, "row_hashes_", None))
    if places is None:
        return scores
    ordered = np.empty_like(scores)
    ordered[:, places] = scores
    return ordered


def _check_measurement(truth, last):
    """ValueError where the estimator ``last`` attributes something else than the truth measured."""
    measured, measure = getattr(truth, "measurement", None), getattr(last, "_measure", None)
    attributed = getattr(measure, "name", None)
    if measured is None or attributed is None or not hasattr(last, "measurement"):
        return
    outputs = [None if o is None else tuple(o) for o in (_settings(truth).get("output"), measure.output)]
    if measured == attributed and (None in outputs or outputs[0] == outputs[1]):
        return
    measured, attributed = (
        f"{name!r}" + ("" if output is None else f" of output {output}")
        for name, output in zip((measured, attributed), outputs)
    )
    raise ValueError(
        f"expected an estimator that attributes what the truth measured, {measured}, got one that attributes "
        f"{attributed}: give both the same measurement"
    )


def _settings(truth):
    """The settings of a retraining, {} for a truth of another kind."""
    return getattr(truth, "settings", None) or {}


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
