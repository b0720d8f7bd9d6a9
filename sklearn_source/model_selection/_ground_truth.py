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
        raise ValueError("this truth does not hold the queries it was measured on: pass X_query")
    n_query = np.asarray(truth.outputs).shape[2]
    for name, given in (("X_query", X_query), ("y_query", y_query)):
        if given is not None and count_rows(given) != n_query:
            raise ValueError(
                f"expected the {n_query} queries of the truth, got {name} of {count_rows(given)} rows: pass the "
                "queries given to the retraining, all of them and in the same order"
            )
    if y_query is None and _settings(truth).get("query_labels") == "given":
        raise ValueError("the truth was measured with targets of the queries: pass the same y_query")
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
    _check_measurement(truth, last)
    scores = np.asarray(_transform(estimator, X, y))
    n_train = np.asarray(truth.masks).shape[1]
    if scores.ndim != 2 or scores.shape[1] != n_train:
        raise ValueError(
            f"the truth is of {n_train} training rows, the estimator gave scores of shape {scores.shape}: fit it "
            "on all of them, by cv=FullTrainingSet() (and in HalvingGridSearchCV by a parameter as resource)"
        )
    places = match_truth_rows(truth, getattr(last, "row_hashes_", None))
    if places is None:
        return scores
    ordered = np.empty_like(scores)
    ordered[:, places] = scores
    return ordered


def _check_measurement(truth, last):
    wanted, measure = getattr(truth, "measurement", None), getattr(last, "_measure", None)
    found = getattr(measure, "name", None)
    if wanted is None or found is None or not hasattr(last, "measurement"):
        return
    outputs = [None if o is None else tuple(o) for o in (_settings(truth).get("output"), measure.output)]
    if wanted == found and (None in outputs or outputs[0] == outputs[1]):
        return
    wanted, found = (
        f"{name!r}" + ("" if output is None else f" of output {output}")
        for name, output in zip((wanted, found), outputs)
    )
    raise ValueError(f"the truth measured {wanted}, the estimator attributes {found}: give both the same measurement")


def _settings(truth):
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
