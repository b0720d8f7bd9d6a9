"""One call from a fitted method and held-out rows to a page about the errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils import Bunch

from ...rows import is_stream
from ...utils._argument_checks import check_confidence, check_count, check_k
from .._fit_rows import fit_rows
from .._score_chunks import keep_scores
from ._actions import action_columns, best_first, candidate_actions, predicted_effects
from ._groups_behind import described_by, groups_behind, true_labels
from ._issues import find_issues
from ._profile import contrasts, profile_scores, score_errors
from ._question import pose_question
from ._readable import readable_rows
from ._regions import thin_regions
from ._report import AttributionReport

_N_NEIGHBORS = 10


def attribution_report(
    estimator: BaseEstimator,
    X_query: Any,
    y_query: Any = None,
    *,
    queries: ArrayLike | str = "errors",
    y_pred: ArrayLike | None = None,
    X_train: Any = None,
    y_train: Any = None,
    kind: str = "auto",
    inverse_transform: Callable | None = None,
    inverse_transform_y: Callable | None = None,
    feature_names: Sequence[str] | None = None,
    target_names: Sequence[str] | Mapping[Any, str] | None = None,
    scale: float = 1.0,
    unit: str | None = None,
    representation: ArrayLike | None = None,
    n_shown: int = 8,
    k: int = 5,
    confidence: float = 0.95,
    title: str = "What stands behind the errors",
) -> AttributionReport:
    """Report on the errors of a network: the training rows behind them, what is wrong with rows, and what to do.

    One call that asks :func:`audit_training_rows`, :func:`behaviour_groups`, :func:`under_sampled_regions` and
    :func:`predict_action` about the
    held-out rows that the network gets wrong, and puts what they found on one page.

    Read more in the :ref:`User Guide <attribution_report>`.

    Parameters
    ----------
    estimator : fitted attribution method
        Any: gradient methods, features, ensembles, other people's with ``transform`` and ``n_train_``, or a pipeline
        that ends in one.
    X_query : array-like of shape (n_query, ...)
        Held-out rows, as ``transform`` takes them.
    y_query : array-like of shape (n_query, ...), optional
        Their true targets. Without them errors are not known.
    queries : {"errors", "all"}, or array-like of int or mask of shape (n_query,), default="errors"
        Which held-out rows are looked at. ``"errors"``: those predicted wrong; of regressions, or where none is wrong,
        the tenth with the largest loss; all where nothing tells. Actions are predicted for all held-out rows.
    y_pred : array-like of shape (n_query,), optional
        The answers to the held-out rows, of a method that has no network to ask.
    X_train : array-like of shape (n_train, ...), optional
        The training rows, to be shown. None: those given to ``fit``, which is what a pipeline's steps made of them. A
        method fitted on a stream needs them, and ``y_train``: the same rows, as arrays or a map-style Dataset.
    y_train : array-like of shape (n_train, ...), optional
        Their targets, to be shown. None: those given to ``fit``.
    kind : {"auto", "image", "table", "text"}, default="auto"
        As what rows are shown; see :class:`InfluenceDisplay`.
    inverse_transform : callable, optional
        Makes of rows, queries as well, rows as people read them: ``scaler.inverse_transform``,
        ``tokenizer.batch_decode``.
    inverse_transform_y : callable, optional
        Makes of targets and predictions (n, n_outputs) of a regression numbers as people read them:
        ``scaler_y.inverse_transform``.
    feature_names : list of str, optional
        Of a table; default: the columns of a frame.
    target_names : list or dict of str, optional
        Of the classes. For a regression the name of the target, in a list.
    scale : float, default=1.0
        Multiplies scores and changes of the measurement on the page, as ``scaler_y.scale_[0]`` does to give them the
        unit of the target.
    unit : str, optional
        Of the scores times ``scale``.
    representation : array-like of shape (n_train, n_features), optional
        Vectors in which distances between training rows mean something; see :func:`audit_training_rows`. None: the rows
        themselves, and of texts nothing is told of neighbours.
    n_shown : int, default=8
        Held-out rows of which supporters and opponents are shown: those of largest loss.
    k : int, default=5
        Training rows of either sign shown for each.
    confidence : float, default=0.95
        Of the intervals.
    title : str, default="What stands behind the errors"
        Of the page.

    Returns
    -------
    report : AttributionReport
        A page in a notebook, and ``save("report.html")``; ``issues_`` and ``actions_`` are tables, ``groups_`` and
        ``regions_`` lists, ``confirm`` trains with actions and without.

    Raises
    ------
    ValueError
        If lengths do not fit, queries are none, settings are out of range, or rows cannot be shown as ``kind``.
    TypeError
        If the estimator is no attribution method, or was fitted on a stream and ``X_train`` is not given.

    See Also
    --------
    audit_training_rows : Every training row with what speaks against it.
    predict_action : What one action should do.
    InfluenceDisplay : The rows behind one answer, drawn.

    Notes
    -----
    What is about scores is asked of the chosen queries, ``n_query`` of which are taken at a time as the memory budget
    allows (:func:`~sklearn_source.config_context`): the whole matrix is never held. Costs a ``transform`` of the chosen
    queries, one of all queries, three where their scores do not fit in memory, one of some hundred training rows,
    ``self_influence``, and a ``predict_reweighting`` and a ``predict_relabeling`` of all queries. The page holds some
    hundred rows, however many there are.

    References
    ----------
    .. [1] E. Nguyen, J. Bertram, E. Kortukov, J. Y. Song, S. J. Oh, "Towards User-Focused Research in Training Data
       Attribution for Human-Centered Explainable AI", 2024, arXiv:2409.16978.

    Examples
    --------
    >>> report = attribution_report(est, X_val, y_val, target_names=names)  # doctest: +SKIP
    >>> report.save("report.html")  # doctest: +SKIP
    >>> report.actions_[["description", "errors_change", "errors_low", "errors_high"]]  # doctest: +SKIP
    >>> report.confirm(actions=[0], n_repeats=5, random_state=1)  # doctest: +SKIP
    """
    check_confidence(confidence)
    n_shown = check_count("n_shown", n_shown)
    if not isinstance(title, str):
        raise ValueError(f"expected title to be a text, got {title!r}")
    question = pose_question(estimator, X_query, y_query, y_pred, queries)
    k = check_k(k, question.estimator.n_train_)
    given = _given_rows(question.method, X_train, y_train)
    rows = readable_rows(
        question, given if X_train is None else (X_train, y_train), kind, inverse_transform, inverse_transform_y,
        feature_names, target_names, scale, unit,
    )  # fmt: skip
    # Distances between ids of tokens mean nothing.
    n_neighbors = 0 if rows.kind == "text" and representation is None else _N_NEIGHBORS
    names = target_names if question.answers.is_classification else None
    shown = _shown_queries(question, n_shown)
    X_asked, y_asked = question.rows(question.asked)
    profile = profile_scores(question, X_asked, y_asked, shown, k)
    with keep_scores():
        everything = question.X, question.y_of_method
        issues = find_issues(
            question, profile, given, names, *everything, representation=representation, n_neighbors=n_neighbors
        )
        words = described_by(question, rows, names)
        regions = thin_regions(question, words, *everything)
        groups = groups_behind(question, words, given, *everything)
    places = question.asked[shown]
    relabels = true_labels(question, groups, given, rows)
    actions = candidate_actions(issues, groups, regions, question.estimator.n_train_, relabels)
    effects, reasons = predicted_effects(question, actions)
    columns = action_columns(actions, effects, reasons, question.n_query, confidence)
    order = best_first(columns, effects)
    found = Bunch(
        title=title, confidence=confidence, profile=profile, issues=issues, groups=groups, regions=regions,
        shown=places, errors=score_errors(question, places), contrasts=contrasts(question, places, k),
        actions={name: column[order] for name, column in columns.items()}, effects=[effects[i] for i in order],
    )  # fmt: skip
    return AttributionReport(question, rows, found)


def _given_rows(method, X_train, y_train):
    """Rows and targets that a method was fitted on, of a stream those passed; None of a method that keeps none."""
    is_by_place = not is_stream((getattr(method, "_given", None) or (None,))[0])
    return fit_rows(method) if is_by_place else fit_rows(method, X_train, y_train)


def _shown_queries(question, n_shown):
    """Places among the asked queries of those with the largest loss, or of the first."""
    loss = question.answers.loss
    if loss is None:
        return np.arange(min(n_shown, len(question.asked)))
    return np.argsort(-loss[question.asked], kind="stable")[:n_shown]
