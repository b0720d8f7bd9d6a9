"""The training rows of highest and of lowest score for one query, by a fitted method or from scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin

from ...base import net_with_steps
from ...network import split_pipeline
from ...rows import as_arrays, count_rows, row_hashes, take_rows
from ...utils._argument_checks import check_names
from .._predictions import require_queries
from .._score_chunks import check_attribution
from .._showable import take_showable
from ._captions import measurement_in_words
from ._display import finite_vector, number_array
from ._influence_data import checked_k, class_name, position_of, require_length


@dataclass(frozen=True)
class Ranking:
    """The strongest training rows of one query, and what is known of the query.

    Attributes
    ----------
    position : int
        Of the query among the queries.
    query_row : frame, ndarray, list of str, or dict or tuple of these
        The query, as a container of one row.
    query_target : ndarray of shape (1, ...) or None
        Its target.
    supporting, opposing : tuple of ndarray of shape (k,)
        Indices of training rows and their scores, strongest first.
    has_classes : bool
        Whether targets are classes, which have names.
    prediction : object
        The network's answer, None where it is not shown.
    has_unit : bool
        Whether the sign of a score says that a row raised or lowered the measurement.
    measurement : str
        What the scores are parts of, in words.
    errors : ndarray (n_train,) or None
        Standard errors of the scores of all rows, where they are known.
    """

    position: int
    query_row: Any
    query_target: Any
    supporting: tuple
    opposing: tuple
    has_classes: bool
    prediction: Any
    has_unit: bool
    measurement: str
    errors: np.ndarray | None


def rank_by_estimator(estimator, X_query, y, X_train, y_train, query, k, target_names, prediction):
    """The :class:`Ranking` of one of the queries by a fitted method; the other arguments are the user's."""
    check_attribution(estimator)
    check_names("target_names", target_names, or_mapping=True)
    require_queries(estimator, X_query, y)
    require_length(X_train, estimator.n_train_, "X_train", "the rows that the estimator was fitted on")
    _refuse_another_order(estimator, X_train, y_train)
    position = position_of(query, count_rows(X_query))
    row, target = take_rows(X_query, [position]), None if y is None else np.asarray(take_showable(y, [position]))
    k = min(checked_k(k), estimator.n_train_)
    supporting, opposing = (
        estimator.top_influences(row, target, k=k, order=order) for order in ("supporting", "opposing")
    )
    has_classes = isinstance(estimator.net_, ClassifierMixin)
    if prediction is None and has_classes:
        predicted = np.asarray(net_with_steps(estimator).predict(row))
        prediction = class_name(predicted[0], target_names) if predicted.shape == (1,) else None
    measurement = "the score"
    if estimator.has_unit:
        measurement = measurement_in_words(estimator._measure.name)
        measured_class = prediction if target is None or not has_classes else class_name(target[0], target_names)
        if estimator._measure.name == "log_odds" and measured_class is not None:
            measurement += f" of {measured_class}"
    return Ranking(
        position=position,
        query_row=take_showable(X_query, [position]),
        query_target=target,
        supporting=(supporting.indices[0], supporting.scores[0]),
        opposing=(opposing.indices[0], opposing.scores[0]),
        has_classes=has_classes,
        prediction=prediction,
        has_unit=estimator.has_unit,
        measurement=measurement,
        errors=_errors_of(estimator, row, target),
    )


def _refuse_another_order(estimator, X_train, y_train):
    """Refuse rows of which some are those of ``fit`` in other places.

    Rows that are written otherwise (in their own units, as texts) or have other targets are not recognised, and shown.
    """
    known = getattr(estimator, "row_hashes_", None)
    try:
        given = None if known is None else _hashes_as_read(estimator, X_train, y_train)
    except (TypeError, ValueError):  # not as the network reads them, or the steps in front of it
        return
    if given is not None and bool(np.isin(given[given != known], known).any()):
        raise ValueError(
            "expected X_train and y_train in the order of fit, got the same rows in another: the scores shown would be "
            "those of other rows"
        )


def _hashes_as_read(estimator, X_train, y_train):
    """Fingerprints of rows as the network reads them."""
    steps, net = split_pipeline(net_with_steps(estimator))
    return row_hashes(*as_arrays(net, steps.transform(X_train), y_train))


def _errors_of(estimator, row, target):
    """Standard errors of the scores of one query (n_train,), from a method that knows them; else None."""
    one_member = len(getattr(estimator, "members_", [])) == 1
    return estimator.score_error(row, target)[0] if hasattr(estimator, "score_error") and not one_member else None


def rank_by_scores(scores, errors, X_query, y, X_train, y_train, query, k, prediction, has_unit, measurement):
    """The :class:`Ranking` of one of the queries by scores (n_query, n_train); the other arguments are the user's."""
    scores, n_train, n_query = number_array(scores, "scores"), count_rows(X_train), count_rows(X_query)
    if scores.shape != (n_query, n_train):
        raise ValueError(
            f"expected scores of shape (n_query, n_train) = ({n_query}, {n_train}), as X_query and X_train say, "
            f"got {scores.shape}"
        )
    if errors is not None and np.shape(errors) != scores.shape:
        raise ValueError(f"expected errors of the shape of the scores, {scores.shape}, got {np.shape(errors)}")
    position = position_of(query, n_query)
    row, k = finite_vector(scores[position], "scores"), checked_k(k)
    targets = [np.asarray(values) for values in (y, y_train) if values is not None]
    highest = np.argsort(-row, kind="stable")[:k]
    lowest = np.argsort(row, kind="stable")[:k]
    return Ranking(
        position=position,
        query_row=take_showable(X_query, [position]),
        query_target=None if y is None else np.asarray(take_showable(y, [position])),
        supporting=(highest, row[highest]),
        opposing=(lowest, row[lowest]),
        has_classes=bool(targets) and all(values.dtype.kind in "bui" for values in targets),
        prediction=prediction,
        has_unit=has_unit,
        measurement=measurement,
        errors=None if errors is None else np.asarray(errors, dtype=np.float64)[position],
    )
