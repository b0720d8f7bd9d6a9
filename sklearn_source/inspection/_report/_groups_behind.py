"""The groups of training rows behind the errors, described by what people read of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
from sklearn.utils import Bunch

from .._behaviour_groups import behaviour_groups
from .._group_names import class_labels


def groups_behind(question, words, given, X, y):
    """The :class:`BehaviourGroups` of a question.

    Parameters
    ----------
    question : Question
    words : dict
        From :func:`described_by`.
    given : (X_train, y_train) or None
        As the method takes them.
    X, y
        All held-out rows, as ``transform`` takes them.
    """
    X_train, y_train = given or (None, None)
    return behaviour_groups(
        question.estimator, X, y, X_train=X_train, y_train=y_train, random_state=0, **words
    )  # fmt: skip


def true_labels(question, groups, given, rows):
    """The groups whose rows carry the label that errors get, where one other is the true one of most: these rows.

    Returns
    -------
    found : dict of int to Bunch
        By the place of a group ``rows``, ``label``, and in words ``own`` and ``name``.
    """
    answers, found = question.answers, {}
    labels = class_labels(question.estimator, None if given is None else given[1])
    if answers.wrong is None or labels is None:
        return found
    for number, group in enumerate(groups):
        pairs = Counter(zip(answers.predicted[group.queries].tolist(), answers.target[group.queries].tolist()))
        (own, true), count = pairs.most_common(1)[0]
        spoilt = group.rows[labels[group.rows] == own]
        if 2 * count > len(group.queries) and 2 * len(spoilt) > len(group.rows):
            found[number] = Bunch(rows=spoilt, label=true, own=rows.answer(own), name=rows.answer(true))
    return found


def described_by(question, rows, target_names):
    """What groups of rows are described by: ``readable``, ``feature_names`` and ``class_names``, a dict.

    Parameters
    ----------
    question : Question
    rows : ReadableRows
    target_names : list or dict of str, or None
        Of the classes.
    """
    shown, n_train = rows.shown, question.estimator.n_train_
    names = None if target_names is None or isinstance(target_names, Mapping) else list(target_names)
    found = {"readable": None, "feature_names": None, "class_names": names}
    if shown is not None and shown.kind in ("table", "text"):
        return {**found, "readable": _numbers(shown.train(np.arange(n_train))), "feature_names": shown.feature_names}
    if shown is not None:  # pixels by number are no description
        found["readable"] = np.empty((n_train, 1, 1))
    return found


def _numbers(rows):
    """Rows as numbers where all of them are."""
    try:
        return np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError):
        return rows
