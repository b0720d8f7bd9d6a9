"""What a report is about: a method, held-out rows, the network's answers to them, and which of these are looked at."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.base import is_classifier
from sklearn.utils import Bunch

from ...base import NetworkAttribution, net_with_steps
from ...rows import count_rows, row_indices, take_rows
from .._audit import higher_is_better
from .._predictions import predict_rows, require_queries
from .._score_chunks import check_attribution
from .._showable import take_showable

_WORST_SHARE = 0.1  # of the rows, where there are no errors to look at: those of largest loss


@dataclass(frozen=True)
class Question:
    """Held-out rows asked about.

    Attributes
    ----------
    estimator : attribution method
        The last step, of a pipeline.
    method : attribution method
        The first of an ensemble's members, or the estimator itself.
    is_pipeline : bool
    X, y : rows and targets or None
        As the method takes them.
    X_shown : rows
        As they were given, before a pipeline's steps.
    answers : Bunch
        ``is_classification``, and ``target``, ``predicted``, ``loss``, ``probability`` and ``wrong``, each (n_query,)
        or None.
    asked : ndarray of int (n_asked,)
        The queries that the report looks at.
    why : str
        Which these are, in a sentence.
    """

    estimator: Any
    method: Any
    is_pipeline: bool
    X: Any
    y: Any
    X_shown: Any
    answers: Bunch
    asked: np.ndarray
    why: str

    @property
    def n_query(self):
        return count_rows(self.X)

    @property
    def net(self):
        """As it takes :attr:`X`; None of a method without."""
        return net_with_steps(self.estimator)

    @property
    def measurement(self):
        """The name of what is measured, None where it has none."""
        return getattr(getattr(self.method, "_measure", None), "name", None)

    @property
    def has_unit(self):
        return bool(getattr(self.estimator, "has_unit", False))

    @property
    def y_of_method(self):
        """Targets to pass on to ``transform``: None where it takes none."""
        return self.y if "y" in inspect.signature(self.estimator.transform).parameters else None

    def rows(self, index):
        """Some queries and their targets, as ``transform`` takes them."""
        y = self.y_of_method
        return take_rows(self.X, index), None if y is None else take_rows(y, index)

    def harm_signs(self):
        """What a score of each asked query is multiplied by to be a push towards the error: (n_asked,)."""
        answers, lowers = self.answers, -np.ones(len(self.asked))
        if not isinstance(self.method, NetworkAttribution) or higher_is_better(self.method):
            return lowers
        known = answers.predicted is not None and answers.target is not None and answers.predicted.ndim == 1
        if self.measurement != "prediction" or not known or answers.is_classification:
            return lowers
        return np.sign(answers.predicted[self.asked] - answers.target[self.asked])


def pose_question(estimator, X_query, y_query, y_pred, queries):
    """The :class:`Question` that a user's arguments are; errors as of :func:`attribution_report`."""
    X, is_pipeline = X_query, hasattr(estimator, "steps")
    if is_pipeline:
        X = estimator[:-1].transform(X_query) if len(estimator) > 1 else X_query
        estimator = estimator[-1]
    check_attribution(estimator)
    n_query = count_rows(X)
    if n_query is None or n_query < 1:
        raise ValueError("expected queries that can be counted, one at least: pass them as an array, a frame or a list")
    for name, values in (("y_query", y_query), ("y_pred", y_pred)):
        if values is not None and count_rows(values) != n_query:
            raise ValueError(f"expected {name} to have {n_query} rows, like X_query, got {count_rows(values)}")
    method = getattr(estimator, "members_", [estimator])[0]
    require_queries(estimator, X, y_query)
    answers = _answers(net_with_steps(estimator), X, y_query, y_pred)
    asked, why = _asked(queries, answers, n_query)
    return Question(estimator, method, is_pipeline, X, y_query, X_query, answers, asked, why)


def _answers(net, X, y, y_pred):
    """Targets, predictions, losses and errors of the queries, as far as they are known."""
    found = Bunch(is_classification=False, target=None, predicted=None, loss=None, probability=None)
    if net is not None and (y is not None or isinstance(X, torch.utils.data.Dataset)):
        found = predict_rows(net, X, y)
    elif net is not None and is_classifier(net):
        found.predicted, found.is_classification = _vector(net.predict(X)), True
    if y_pred is not None:
        found.predicted = _predictions(y_pred, found.target)
        if found.target is None and y is not None:
            found.target = _vector(take_showable(y, np.arange(len(found.predicted))))
            found.is_classification = found.target.dtype.kind not in "fc"
        if found.loss is None and found.target is not None and not found.is_classification:
            found.loss = np.square(found.predicted - found.target).reshape(len(found.target), -1).mean(axis=1)
    both = found.predicted is not None and found.target is not None
    found.wrong = found.predicted != found.target if both and found.is_classification else None
    return found


def _predictions(y_pred, target):
    """The user's own, where they can be compared with the targets."""
    try:
        given = _vector(y_pred)
    except ValueError as error:
        raise ValueError(f"expected y_pred as one prediction for each query ({error})") from error
    fits = target is None or given.shape == target.shape and given.dtype.kind in "biuf"
    if not fits or given.dtype.kind == "f" and not np.isfinite(given).all():
        raise ValueError(
            f"expected y_pred as one prediction for each query, finite and of the kind of y_query, got {given.dtype} "
            f"of shape {given.shape}"
        )
    return given


def _vector(values):
    values = np.asarray(values)
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def _asked(queries, answers, n_query):
    """Positions of the queries that are looked at, and a sentence that says which they are."""
    if not isinstance(queries, str):
        index = row_indices(queries, n_query, "queries")
        if not len(index):
            raise ValueError("expected at least one query, got none")
        return index, f"This page looks at {len(index):,} of {n_query:,} held-out rows, chosen by hand."
    if queries not in ("errors", "all"):
        raise ValueError(f"expected queries to be 'errors', 'all' or positions, got {queries!r}")
    everything = np.arange(n_query)
    if queries == "all":
        return everything, f"This page looks at all {n_query:,} held-out rows."
    if answers.wrong is not None and answers.wrong.any():
        wrong = np.flatnonzero(answers.wrong)
        return wrong, f"This page looks at the errors: {len(wrong):,} of {n_query:,} held-out rows."
    if answers.loss is None:
        return everything, (
            f"Errors are not known without targets and the network's answers: this page looks at all {n_query:,} rows."
        )
    n_worst = max(1, round(_WORST_SHARE * n_query))
    worst = np.sort(np.argsort(-answers.loss, kind="stable")[:n_worst])
    none = "No held-out row is wrong" if answers.wrong is not None else "Of numbers, none is right or wrong"
    return worst, f"{none}: this page looks at the {n_worst:,} of {n_query:,} held-out rows with the largest loss."
