"""Which rows an :class:`InfluenceDisplay` shows, and how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real

import numpy as np
from sklearn.utils import Bunch

from ...rows import count_rows
from ...utils._argument_checks import check_callable, check_choice, check_count, check_names
from .._showable import take_showable
from ._row_kinds import KINDS, as_kind, column_moments, column_names, kind_of


class ShownRows:
    """Training rows and queries of one kind, made readable: what is read once stands for every display of them.

    Parameters
    ----------
    X_train, y_train
        Rows and their targets, or None for the latter.
    kind : {"auto", "image", "table", "text"}
    inverse_transform : callable or None
        Makes of rows rows as people read them.
    feature_names : list of str or None
    target_names : list or dict of str, or None
        Of the classes, or of a regression's one target.
    has_classes : bool
        Whether targets are classes, which have names.
    example : rows
        Some, as ``take_showable`` gives them: they decide what ``"auto"`` is.

    Attributes
    ----------
    kind : {"image", "table", "text"}
    feature_names : list of str or None
    means, spread : ndarray (n_features,) or None
        Mean and standard deviation of every column of a table over the training rows, NaN for no numbers.
    target_name : str
        What the targets are called.

    Raises
    ------
    ValueError
        Where lengths do not fit, or rows cannot be shown as ``kind``.
    """

    def __init__(self, X_train, y_train, kind, inverse_transform, feature_names, target_names, *, has_classes, example):
        check_choice("kind", kind, ("auto", *KINDS))
        check_callable("inverse_transform", inverse_transform)
        check_names("feature_names", feature_names)
        check_names("target_names", target_names, or_mapping=True)
        if y_train is not None:
            require_length(y_train, count_rows(X_train), "y_train", "X_train")
        self._X, self._y, self._has_classes, self._target_names = X_train, y_train, has_classes, target_names
        self._as_shown = inverse_transform or (lambda rows: rows)
        example = self._as_shown(example)
        self.kind = kind_of(example) if kind == "auto" else kind
        self.feature_names = self.means = self.spread = None
        if self.kind == "table":
            all_rows = self._as_shown(take_showable(X_train, np.arange(count_rows(X_train))))
            self.feature_names = column_names(example, feature_names, as_kind(example, self.kind).shape[1])
            self.means, self.spread = column_moments(all_rows)
        names_one_target = target_names is not None and not isinstance(target_names, Mapping) and len(target_names) == 1
        self.target_name = str(target_names[0]) if names_one_target and not has_classes else "target"

    def query(self, rows):
        """The first of some rows that ``take_showable`` gave, as it is shown."""
        return as_kind(self._as_shown(rows), self.kind)[0]

    def train(self, index):
        """Training rows as they are shown: a list of images or str, or an array (n, n_features)."""
        return as_kind(self._as_shown(take_showable(self._X, index)), self.kind) if len(index) else []

    def targets(self, index):
        """Targets of training rows as they are shown, a list; None where they are not known."""
        return None if self._y is None else [self.target(value) for value in take_showable(self._y, index)]

    def target(self, value):
        """A target as it is shown: a class by its name, a single number, a str, or an array."""
        return _target(value, self._target_names, self._has_classes)


def display_arguments(ranking, shown, scale, unit):
    """Arguments of an :class:`InfluenceDisplay`, a dict, from a :class:`Ranking` and :class:`ShownRows`.

    Raises a ValueError where ``scale`` is no positive number.
    """
    check_scale(scale)

    def shown_rows(indices, scores, sign):
        """The Bunch of supporting rows (sign 1) or opposing ones (-1), without those of the other sign."""
        indices, scores = np.asarray(indices), np.asarray(scores, dtype=np.float64)
        keep = sign * scores > 0 if ranking.has_unit else np.ones(len(scores), dtype=bool)
        indices, scores = indices[keep], scores[keep]
        errors = None if ranking.errors is None else ranking.errors[indices] * scale
        return Bunch(
            indices=indices, scores=scores * scale, errors=errors, X=shown.train(indices), y=shown.targets(indices)
        )

    target = ranking.query_target
    return {
        "query": Bunch(
            X=shown.query(ranking.query_row),
            y=None if target is None else shown.target(target[0]),
            prediction=ranking.prediction,
            index=ranking.position,
        ),
        "supporting": shown_rows(*ranking.supporting, 1),
        "opposing": shown_rows(*ranking.opposing, -1),
        "kind": shown.kind,
        "measurement": ranking.measurement,
        "unit": unit,
        "has_unit": ranking.has_unit,
        "feature_names": shown.feature_names,
        "spread": shown.spread,
        "target_name": shown.target_name,
    }


def check_scale(scale):
    """ValueError where ``scale`` is no positive number."""
    if isinstance(scale, bool) or not isinstance(scale, Real) or not 0 < scale < np.inf:
        raise ValueError(f"expected scale to be a positive number, got {scale!r}")


def checked_k(k):
    """`k`, checked."""
    return check_count("k", k)


def position_of(query, n_query):
    """A query's position, checked; negative ones count from the end."""
    if n_query is None:
        raise ValueError("expected X_query as rows that can be counted, got others: pass an array, a frame or a list")
    if isinstance(query, bool) or not isinstance(query, Integral) or not -n_query <= query < n_query:
        raise ValueError(f"expected query to be the position of one of the {n_query} queries, got {query!r}")
    return int(query) % n_query


def require_length(rows, expected, what, like):
    """Refuse rows that cannot belong to the others."""
    if (n_rows := count_rows(rows)) != expected:
        raise ValueError(f"expected {what} to have {expected} rows, like {like}, got {n_rows}")


def class_name(value, target_names):
    """A class by its name where there are names, else as it is; a ValueError where the names lack it."""
    value = np.ravel(value)
    if target_names is None or len(value) != 1:
        return value[0] if len(value) == 1 else value
    key = value[0].item() if isinstance(target_names, Mapping) else int(value[0])
    known = target_names if isinstance(target_names, Mapping) else range(len(target_names))
    if key not in known:
        raise ValueError(f"expected target_names to name every class, got no name for class {key}")
    return str(target_names[key])


def _target(value, target_names, has_classes):
    """A target as it is shown: a class by its name, a single number, a str, or an array."""
    if has_classes:
        return class_name(value, target_names)
    if isinstance(value, str):
        return value
    value = np.ravel(value)
    return value[0] if len(value) == 1 else value
