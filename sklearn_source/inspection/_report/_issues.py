"""The training rows with something wrong about them, one table."""

from __future__ import annotations

import numpy as np

from ...base import NetworkAttribution
from .._audit import audit_training_rows

_HARMFUL_SHARE = 0.01  # of the rows: those that push most towards the errors


def find_issues(question, profile, given, target_names, X_all, y_all, **neighbours):
    """Columns of the table of issues, worst first; empty columns where nothing is wrong.

    Parameters
    ----------
    question : Question
    profile : Bunch
        From :func:`profile_scores`.
    given : tuple or None
        Rows and targets as the method was fitted on them.
    target_names : list or dict of str, or None
        Of the classes.
    X_all, y_all
        All held-out rows: what a row opposes is told of these.
    **neighbours
        ``representation`` and ``n_neighbors`` of :func:`audit_training_rows`.

    Returns
    -------
    columns : dict of str to ndarray (n_issues,)
    """
    harmful = _harmful_rows(profile)
    if not isinstance(question.method, NetworkAttribution) or given is None:
        return _of_scores_alone(profile, harmful)
    X, y = given
    audit = audit_training_rows(
        question.estimator, X, y, X_query=X_all, y_query=y_all, **neighbours,
        k=min(10, question.estimator.n_train_), target_names=target_names, as_frame=False,
    )  # fmt: skip
    names, row = set(audit.dtype.names), np.asarray(audit["row"])
    found = {name: np.asarray(audit[name]) for name in audit.dtype.names}
    is_harmful = harmful[row]
    is_label = found["suggestion"] == "relabel"
    columns = {
        "row": row,
        "is_label_issue": is_label,
        "label_score": _label_scores(found),
        "is_harmful_issue": is_harmful,
        "harm": profile.harm[row],
        "n_harmed": profile.n_harmed[row],
    }
    if "near_duplicate" in names:
        columns["is_near_duplicate_issue"] = found["near_duplicate"] >= 0
        columns["near_duplicate"] = found["near_duplicate"]
    for name in ("label", "suggested_label", "target", "predicted", "loss", "self_influence"):
        if name in names:
            columns[name] = found[name]
    columns["suggestion"] = np.where(is_harmful & (found["suggestion"] == "keep"), "inspect", found["suggestion"])
    columns["reason"] = np.array(
        [_with_harm(reason, harms) for reason, harms in zip(found["reason"], is_harmful)], dtype=object
    )
    keep = columns["suggestion"] != "keep"
    order = np.flatnonzero(keep)
    order = order[np.lexsort((-found["suspicion"][order], _urgency(columns["suggestion"][order])))]
    return {name: column[order] for name, column in columns.items()}


def _of_scores_alone(profile, harmful):
    """The table of a method that has no network to ask: which rows push most towards the errors."""
    rows = np.flatnonzero(harmful)
    rows = rows[np.argsort(-profile.harm[rows], kind="stable")]
    words = np.full(len(rows), "", dtype=object)
    words[:] = _with_harm("", True)
    return {
        "row": rows,
        "is_harmful_issue": np.ones(len(rows), dtype=bool),
        "harm": profile.harm[rows],
        "n_harmed": profile.n_harmed[rows],
        "suggestion": np.full(len(rows), "inspect", dtype=object),
        "reason": words,
    }


def _harmful_rows(profile):
    """Mask (n_train,) of the rows with the largest push towards the errors, none of those that push the other way."""
    n = max(1, round(_HARMFUL_SHARE * len(profile.harm)))
    harmful = np.zeros(len(profile.harm), dtype=bool)
    worst = np.argsort(-profile.harm, kind="stable")[:n]
    harmful[worst[profile.harm[worst] > 0]] = True
    return harmful


def _label_scores(found):
    """How well each label fits, from 0, wrong, to 1: the probability without the row where it is known."""
    for name in ("probability_without", "probability"):
        if name in found:
            return found[name]
    return 1.0 - found["suspicion"]


def _with_harm(reason, is_harmful):
    words = "among the rows that push most towards the errors"
    return "; ".join(filter(None, [reason, words if is_harmful else ""]))


def _urgency(suggestion):
    return np.select([suggestion == "relabel", suggestion == "drop"], [0, 1], 2)
