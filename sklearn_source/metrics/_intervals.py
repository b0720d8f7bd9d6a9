"""Intervals of means over queries."""

from __future__ import annotations

from numbers import Real

import numpy as np
from scipy.special import stdtrit


def check_confidence(confidence):
    """Refuse what is no level."""
    if not isinstance(confidence, Real) or isinstance(confidence, bool) or not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence!r}")


def mean_interval(values, confidence, low=-np.inf, high=np.inf):
    """Interval of the mean of independent values, along the first axis, by Student's quantiles.

    Parameters
    ----------
    values : ndarray of shape (n, ...)
    confidence : float
    low, high : float
        Where the mean cannot leave.

    Returns
    -------
    lower, upper : ndarray of shape (...), float where that is ()
        NaN for a single value: it tells nothing of the spread.
    """
    values = np.asarray(values, dtype=np.float64)
    n, mean = len(values), values.mean(axis=0)
    if n < 2:
        nothing = np.full(mean.shape, np.nan)
        return _plain(nothing), _plain(nothing)
    reach = stdtrit(n - 1, 0.5 + confidence / 2) * values.std(axis=0, ddof=1) / np.sqrt(n)
    return _plain(np.clip(mean - reach, low, high)), _plain(np.clip(mean + reach, low, high))


def _plain(value):
    return float(value) if np.ndim(value) == 0 else value
