"""Which rows an :class:`InfluenceDisplay` shows, and how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real

import numpy as np
from sklearn.utils import Bunch

from ...utils._argument_checks import check_count
from .._showable import KINDS, as_kind, column_names, count, kind_of, numeric_spread, take


def collect(
    tops,
    query_row,
    query_target,
    position,
    *,
    X_train,
    y_train,
    kind,
    inverse_transform,
    feature_names,
    target_names,
    classes,
    prediction,
    scale,
    has_unit,
):
    """The arguments of a display, but for the words.

    Parameters
    ----------
    tops : pair of (indices, scores)
        Supporting and opposing rows, strongest first.
    query_row, query_target : rows of one query, and its target or None
    position : int
        Of the query.
    classes : bool
        Whether ``target_names`` name classes.
    """
    if kind not in ("auto", *KINDS):
        raise ValueError(f"kind must be 'auto' or one of {KINDS}, got {kind!r}")
    if isinstance(scale, bool) or not isinstance(scale, Real) or not scale > 0:
        raise ValueError(f"scale must be a positive number, got {scale!r}")
    if y_train is not None:
        require_length(y_train, count(X_train), "y_train", "X_train")
    shown = inverse_transform or (lambda rows: rows)
    query_shown = shown(query_row)
    if kind == "auto":
        kind = kind_of(query_shown)
    names = spread = None
    if kind == "table":
        everything = shown(take(X_train, np.arange(count(X_train))))
        names = column_names(query_shown, feature_names, as_kind(query_shown, kind).shape[1])
        spread = numeric_spread(everything)

    def group(indices, scores, sign):
        indices, scores = np.asarray(indices), np.asarray(scores, dtype=np.float64)
        keep = sign * scores > 0 if has_unit else np.ones(len(scores), dtype=bool)
        indices, scores = indices[keep], scores[keep]
        X = as_kind(shown(take(X_train, indices)), kind) if len(indices) else []
        y = None if y_train is None else [_label(v, target_names, classes) for v in take(y_train, indices)]
        return Bunch(indices=indices, scores=scores * scale, X=X, y=y)

    target_name = "target"
    if not classes and target_names is not None and not isinstance(target_names, Mapping) and len(target_names) == 1:
        target_name = str(target_names[0])
    return {
        "query": Bunch(
            X=as_kind(query_shown, kind)[0],
            y=None if query_target is None else _label(query_target[0], target_names, classes),
            prediction=prediction,
            index=position,
        ),
        "supporting": group(*tops[0], 1),
        "opposing": group(*tops[1], -1),
        "kind": kind,
        "has_unit": has_unit,
        "feature_names": names,
        "spread": spread,
        "target_name": target_name,
    }


def strongest(scores, k):
    """The ``k`` largest and the ``k`` smallest scores of one query: pairs of (indices, scores), strongest first."""
    up = np.argsort(-scores, kind="stable")[:k]
    down = np.argsort(scores, kind="stable")[:k]
    return [(up, scores[up]), (down, scores[down])]


def number_of_rows(k):
    """`k`, checked."""
    return check_count("k", k)


def position_of(query, n_query):
    """A query's position, checked; negative ones count from the end."""
    if isinstance(query, bool) or not isinstance(query, Integral) or not -n_query <= query < n_query:
        raise ValueError(f"query must be the position of one of the {n_query} queries, got {query!r}")
    return int(query) % n_query


def require_length(rows, expected, what, like):
    """Refuse rows that cannot belong to the others."""
    if (found := count(rows)) != expected:
        raise ValueError(f"expected {what} to have {expected} rows, like {like}, got {found}")


def named(value, target_names):
    """A class by its name where there are names, else as it is."""
    value = np.ravel(value)
    if target_names is None or len(value) != 1:
        return value[0] if len(value) == 1 else value
    key = value[0].item() if isinstance(target_names, Mapping) else int(value[0])
    known = target_names if isinstance(target_names, Mapping) else range(len(target_names))
    if key not in known:
        raise ValueError(f"target_names have no name for class {key}")
    return str(target_names[key])


def _label(value, target_names, classes):
    if classes:
        return named(value, target_names)
    if isinstance(value, str):
        return value
    value = np.ravel(value)
    return value[0] if len(value) == 1 else value
