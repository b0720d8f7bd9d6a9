"""Agreement with leaving out single rows."""

from __future__ import annotations

import numpy as np
from sklearn.utils import Bunch, check_random_state

from ._checks import check_resampling, check_scores, check_truth
from ._ranks import column_spearman, interval, resamples


def leave_one_out_correlation(scores, truth, *, confidence=0.95, n_bootstrap=1000, random_state=0):
    """How scores of single rows agree with networks retrained without them, in order and in unit.

    Parameters
    ----------
    scores : array-like of shape (n_query, n_train)
        From ``transform``: in the unit of the measurement, positive where having the row raises it.
    truth : Retraining
        From :func:`~sklearn_source.retraining.leave_one_out`: among its subsets one of all rows, and at least
        three that lack one row each; other subsets are not looked at.
    confidence : float, default=0.95
        Of the intervals.
    n_bootstrap : int, default=1000
        Resamples of the queries behind the intervals.
    random_state : int, RandomState instance or None, default=0

    Returns
    -------
    result : Bunch
        rank : float
            Mean over queries of the Spearman correlation, over the rows left out, of scores and effects.
        rank_interval : tuple of float
            Bootstrap interval of the rank.
        slope : float
            Of the effects on the scores, through the origin, all queries and rows together: 1 where the scores have the
            right unit, above 1 where they are too small. Noise of the retraining does not pull it down; scores
            that are noise do.
        slope_interval : tuple of float
            Bootstrap interval of the slope.
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
    these rows and retrainings.
    """
    masks, outputs = check_truth(truth)
    scores = check_scores(scores, outputs.shape[2], masks.shape[1])
    check_resampling(n_bootstrap, confidence)
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
    found = scores[:, rows].T
    per_query = column_spearman(found, effects)
    products, squares = (found * effects).sum(0), (found * found).sum(0)
    rng = np.random.default_rng(check_random_state(random_state).randint(2**31))
    counts = resamples(len(per_query), n_bootstrap, rng)
    ranks = counts @ per_query / len(per_query)
    norm = counts @ squares
    slopes = np.divide(counts @ products, norm, out=np.full(n_bootstrap, np.nan), where=norm > 0)
    rank = float(per_query.mean())
    tails = [50 * (1 - confidence), 50 * (1 + confidence)]
    return Bunch(
        rank=rank,
        rank_interval=interval(rank, float(ranks.std(ddof=1)), confidence, len(per_query)),
        slope=float(products.sum() / squares.sum()) if squares.sum() else float("nan"),
        slope_interval=tuple(float(v) for v in np.nanpercentile(slopes, tails)) if squares.sum() else (np.nan, np.nan),
        per_query=per_query,
        rows=rows,
    )
