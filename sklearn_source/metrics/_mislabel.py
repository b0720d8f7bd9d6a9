"""Finding mislabelled rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri
from scipy.stats import rankdata
from sklearn.utils import Bunch

from ..utils._argument_checks import check_confidence
from ._score_validation import as_array


def mislabel_detection_score(scores: ArrayLike, is_mislabelled: ArrayLike, *, confidence: float = 0.95) -> Bunch:
    """How early mislabelled rows are met when rows are inspected from the highest score down.

    Read more in the :ref:`User Guide <mislabel_detection>`.

    Parameters
    ----------
    scores : array-like of shape (n_train,)
        Suspicion of every training row, high first: ``est.self_influence()``, or any other.
    is_mislabelled : array-like of bool, shape (n_train,), or of int
        Which rows are, as a mask or as indices.
    confidence : float, default=0.95
        Of the interval.

    Returns
    -------
    result : Bunch
        score : float
            Area under the ROC curve: the probability that a mislabelled row has a higher score than a correct one, ties
            counting one half. 0.5 for chance.
        interval : tuple of float
            Of the score, for other rows of the same kinds [2]_. NaN where a kind has a single row.
        n_inspected : ndarray of shape (n_train + 1,)
            0, 1, ..., n_train.
        found : ndarray of shape (n_train + 1,)
            Share of the mislabelled rows among the first ``n_inspected``; of tied rows the mean over all orders.
        found_by_chance : ndarray of shape (n_train + 1,)
            The same for a random order.
        found_at_best : ndarray of shape (n_train + 1,)
            The same where all mislabelled rows come first.
        average_precision : float
            Mean, over the mislabelled rows, of the share of mislabelled ones among the rows inspected until then; of
            tied rows the mislabelled ones come last. Their share of all rows for chance.

    Raises
    ------
    ValueError
        If lengths differ, scores are not finite, or all rows are of one kind.

    Notes
    -----
    The area under ``found`` against the share of rows inspected is ``p / 2 + (1 - p) * score`` for a share p of
    mislabelled rows.

    References
    ----------
    .. [1] P. W. Koh, P. Liang, "Understanding Black-box Predictions via Influence Functions", ICML 2017, section 5.4.
    .. [2] E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, "Comparing the Areas under Two or More Correlated Receiver
       Operating Characteristic Curves", Biometrics 44, 1988.

    Examples
    --------
    >>> from sklearn_source.metrics import mislabel_detection_score
    >>> detection = mislabel_detection_score([0.1, 0.9, 0.3, 0.2], is_mislabelled=[1])
    >>> detection.score, detection.found[:3].tolist()
    (1.0, [0.0, 1.0, 1.0])
    """
    check_confidence(confidence)
    scores = as_array(scores)
    if scores.ndim != 1 or scores.dtype.kind not in "buif":
        raise ValueError(
            f"expected one score per training row, shape (n_train,), got {scores.dtype} of shape {scores.shape}"
        )
    if not np.isfinite(scores).all():
        raise ValueError("expected finite scores, got NaN or infinity")
    bad = mislabelled_mask(is_mislabelled, len(scores))
    scores = scores.astype(np.float64)
    high, low = scores[bad], scores[~bad]
    ranks = rankdata(scores)
    # The share of the other kind that each row is on the right side of.
    beats = (ranks[bad] - rankdata(high)) / len(low)
    beaten = 1 - (ranks[~bad] - rankdata(low)) / len(high)
    score = float(beats.mean())
    n_inspected = np.arange(len(scores) + 1)
    return Bunch(
        score=score,
        interval=_delong_interval(score, beats, beaten, confidence),
        n_inspected=n_inspected,
        found=_recall_curve(scores, bad),
        found_by_chance=n_inspected / len(scores),
        found_at_best=np.minimum(n_inspected / bad.sum(), 1.0),
        average_precision=_average_precision(scores, bad),
    )


def mislabelled_mask(is_mislabelled: ArrayLike, n_train: int) -> np.ndarray:
    """Which rows are mislabelled, as booleans: some, but not all."""
    given = as_array(is_mislabelled)
    if given.shape == (n_train,) and given.dtype.kind in "biu" and given.min() >= 0 and given.max() <= 1:
        mask = given.astype(bool)  # as positions, rows 0 and 1 would be named over and over
    elif given.ndim == 1 and given.dtype.kind in "iu" and given.size and 0 <= given.min() <= given.max() < n_train:
        mask = np.zeros(n_train, dtype=bool)
        mask[given] = True
        if mask.sum() < len(given):
            raise ValueError("expected every index once in is_mislabelled, got one twice: give a mask, or each once")
    elif given.ndim == 1 and not given.size:
        mask = np.zeros(n_train, dtype=bool)
    else:
        raise ValueError(
            f"expected is_mislabelled as a mask of {n_train} booleans or as indices from 0 to {n_train - 1}, got "
            f"{given.dtype} of shape {given.shape}"
        )
    if mask.all() or not mask.any():
        raise ValueError(
            f"expected mislabelled rows and correct ones, got {int(mask.sum())} mislabelled of {n_train} rows"
        )
    return mask


def _recall_curve(scores, bad):
    """Share found among the first 0, 1, ..., n rows; within a tie it rises evenly."""
    values, inverse, sizes = np.unique(-scores, return_inverse=True, return_counts=True)
    hits = np.bincount(inverse, weights=bad, minlength=len(values))
    return np.concatenate([[0.0], np.cumsum(np.repeat(hits / sizes, sizes))]) / bad.sum()


def _average_precision(scores, bad):
    """Mean precision at the mislabelled rows, from the highest score down; ties count against them."""
    order = np.lexsort((bad, -scores))
    hits = bad[order]
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())


def _delong_interval(score, beats, beaten, confidence):
    """Interval of the area, by the share of the other kind that each row of a kind is on the right side of."""
    if min(len(beats), len(beaten)) < 2:
        return float("nan"), float("nan")
    error = np.sqrt(beats.var(ddof=1) / len(beats) + beaten.var(ddof=1) / len(beaten))
    reach = ndtri(0.5 + confidence / 2) * error
    return float(max(0.0, score - reach)), float(min(1.0, score + reach))
