"""Agreement with leaving out single rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import Bunch

from ..utils._argument_checks import check_confidence
from ._intervals import mean_interval, student_interval
from ._ranks import column_spearman
from ._score_validation import check_scores, check_truth


def leave_one_out_correlation(scores: ArrayLike, truth: Any, *, confidence: float = 0.95) -> Bunch:
    """How scores of single rows agree with networks retrained without them, in order and in unit.

    Read more in the :ref:`User Guide <other_metrics>`.

    Parameters
    ----------
    scores : array-like of shape (n_query, n_train)
        From ``transform``: in the unit of the measurement, positive where having the row raises it.
    truth : Retraining
        From :func:`~sklearn_source.retraining.leave_one_out`: among its subsets one of all rows, and at least
        three that lack one row each; other subsets are not looked at.
    confidence : float, default=0.95
        Of the intervals.

    Returns
    -------
    result : Bunch
        rank : float
            Mean over queries of the Spearman correlation, over the rows left out, of scores and effects.
        rank_interval : tuple of float
            Interval of the rank over other queries of the same kind. NaN for a single query.
        slope : float
            Of the effects on the scores, through the origin, all queries and rows together: 1 where the scores have the
            right unit, above 1 where they are too small. Noise of the retraining does not pull it down; scores
            that are noise do.
        slope_interval : tuple of float
            Interval of the slope over other queries of the same kind, by leaving out one query at a time. NaN for a
            single query.
        per_query : ndarray of shape (n_query,)
            The rank correlation of each query; 0 where scores or effects do not vary.
        rows : ndarray of int
            The rows that were left out, in the order of the truth.

    Raises
    ------
    ValueError
        If shapes differ, something is not finite, or the truth holds too few subsets of the kinds needed.

    Notes
    -----
    The effect of one row is small against the chance of initialisation and batch order: retrain with the same seeds, as
    :func:`~sklearn_source.retraining.leave_one_out` does, and with several repeats. Intervals are over queries, given
    these rows and retrainings; that of the slope is too narrow where few queries hold most of the effects.
    """
    check_confidence(confidence)
    masks, outputs = check_truth(truth)
    scores = check_scores(scores, outputs.shape[2], masks.shape[1])
    missing = (~masks).sum(1)
    whole, single = np.flatnonzero(missing == 0), np.flatnonzero(missing == 1)
    if not len(whole) or len(single) < 3:
        raise ValueError(
            f"expected a truth with one subset of all rows and at least 3 that lack one row, got {len(whole)} and "
            f"{len(single)}: make it with leave_one_out"
        )
    rows = (~masks[single]).argmax(1)
    measured = outputs.mean(1)
    effects = measured[whole].mean(0) - measured[single]  # (n_left_out, n_query): with the row minus without
    predicted = scores[:, rows].T
    per_query = column_spearman(predicted, effects)
    products, squares = (predicted * effects).sum(0), (predicted * predicted).sum(0)
    return Bunch(
        rank=float(per_query.mean()),
        rank_interval=mean_interval(per_query, confidence, -1.0, 1.0),
        slope=float(products.sum() / squares.sum()) if squares.sum() else float("nan"),
        slope_interval=_ratio_interval(products, squares, confidence),
        per_query=per_query,
        rows=rows,
    )


def _ratio_interval(products, squares, confidence):
    """Interval of ``sum(products) / sum(squares)`` by the jackknife and Student's quantiles."""
    n, others = len(products), squares.sum() - squares
    if n < 2 or not others.all():
        return float("nan"), float("nan")
    slope, without = products.sum() / squares.sum(), (products.sum() - products) / others
    return student_interval(slope, np.sqrt((n - 1) * without.var()), n - 1, confidence)
