"""Rank correlations of the columns of two tables, as they are and under resampling of their rows."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from ..utils._config import bytes_for


def column_spearman(a, b):
    """Spearman correlation of each column of `a` with the same column of `b`.

    Parameters
    ----------
    a, b : ndarray of shape (n, n_columns)

    Returns
    -------
    correlations : ndarray of shape (n_columns,)
        0 where a column does not vary: it orders nothing.
    """
    return pearson(rankdata(a, axis=0), rankdata(b, axis=0), np.ones((len(a), 1)))


def resampled_spearman(a, b, counts):
    """Spearman correlation of one column with another, in many resamples of their rows.

    A resample gives row j the multiplicity ``counts[s, j]``. The rank of a row in it is the number of smaller values,
    plus half of those equal to it, so that ranks of all resamples are one product of matrices.

    Parameters
    ----------
    a, b : ndarray of shape (n,)
    counts : ndarray of shape (n_resamples, n)

    Returns
    -------
    correlations : ndarray of shape (n_resamples,)
    """
    correlations = np.empty(len(counts))
    below = [(v[None] < v[:, None]) + 0.5 * (v[None] == v[:, None]) for v in (a, b)]
    step = max(1, bytes_for("resamples") // (8 * len(a)))
    for start in range(0, len(counts), step):
        weights = counts[start : start + step].T
        correlations[start : start + step] = pearson(below[0] @ weights, below[1] @ weights, weights)
    return correlations


def resamples(n, n_resamples, rng):
    """Multiplicities of `n` rows in bootstrap resamples: (n_resamples, n)."""
    return rng.multinomial(n, np.full(n, 1 / n), size=n_resamples).astype(float)


def pearson(a, b, weights):
    """Weighted Pearson correlations along the first axis, (n, n_columns) -> (n_columns,); 0 for constants."""
    total = weights.sum(0)
    a = a - (weights * a).sum(0) / total
    b = b - (weights * b).sum(0) / total
    covariance, scale = (weights * a * b).sum(0), np.sqrt((weights * a * a).sum(0) * (weights * b * b).sum(0))
    return np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 1e-12 * len(a))
