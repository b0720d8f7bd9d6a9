"""Which rows an :class:`InfluenceDisplay` shows, and how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real

import numpy as np
from sklearn.utils import Bunch

from ...rows import count_rows
from ...utils._argument_checks import check_count
from .._showable import take_showable
from ._row_kinds import KINDS, as_kind, column_names, column_std, kind_of


def display_arguments(ranking, X_train, y_train, kind, inverse_transform, feature_names, target_names, scale, unit):
    """Arguments of an :class:`InfluenceDisplay`, a dict, from a :class:`Ranking` and what the user said of the rows.

    Raises a ValueError where lengths do not fit, or rows cannot be shown as ``kind``.
    """
    if kind not in ("auto", *KINDS):
        raise ValueError(f"expected kind to be 'auto' or one of {KINDS}, got {kind!r}")
    if isinstance(scale, bool) or not isinstance(scale, Real) or not scale > 0:
        raise ValueError(f"expected scale to be a positive number, got {scale!r}")
    if y_train is not None:
        require_length(y_train, count_rows(X_train), "y_train", "X_train")
    as_shown = inverse_transform or (lambda rows: rows)
    query_rows = as_shown(ranking.query_row)
    if kind == "auto":
        kind = kind_of(query_rows)
    names = std = None
    if kind == "table":
        all_rows = as_shown(take_showable(X_train, np.arange(count_rows(X_train))))
        names = column_names(query_rows, feature_names, as_kind(query_rows, kind).shape[1])
        std = column_std(all_rows)

    def shown_rows(indices, scores, sign):
        """The Bunch of supporting rows (sign 1) or opposing ones (-1), without those of the other sign."""
        indices, scores = np.asarray(indices), np.asarray(scores, dtype=np.float64)
        keep = sign * scores > 0 if ranking.has_unit else np.ones(len(scores), dtype=bool)
        indices, scores = indices[keep], scores[keep]
        X = as_kind(as_shown(take_showable(X_train, indices)), kind) if len(indices) else []
        y = None
        if y_train is not None:
            y = [_target(v, target_names, ranking.has_classes) for v in take_showable(y_train, indices)]
        errors = None if ranking.errors is None else ranking.errors[indices] * scale
        return Bunch(indices=indices, scores=scores * scale, errors=errors, X=X, y=y)

    target_name = "target"
    names_one_target = target_names is not None and not isinstance(target_names, Mapping) and len(target_names) == 1
    if names_one_target and not ranking.has_classes:
        target_name = str(target_names[0])
    target = ranking.query_target
    return {
        "query": Bunch(
            X=as_kind(query_rows, kind)[0],
            y=None if target is None else _target(target[0], target_names, ranking.has_classes),
            prediction=ranking.prediction,
            index=ranking.position,
        ),
        "supporting": shown_rows(*ranking.supporting, 1),
        "opposing": shown_rows(*ranking.opposing, -1),
        "kind": kind,
        "measurement": ranking.measurement,
        "unit": unit,
        "has_unit": ranking.has_unit,
        "feature_names": names,
        "spread": std,
        "target_name": target_name,
    }


def checked_k(k):
    """`k`, checked."""
    return check_count("k", k)


def position_of(query, n_query):
    """A query's position, checked; negative ones count from the end."""
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
