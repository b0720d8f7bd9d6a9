"""Intervals by Student's quantiles."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import stdtrit


def student_interval(
    estimate: Any, error: Any, degrees_of_freedom: Any, confidence: float, low: float = -np.inf, high: float = np.inf
) -> tuple[Any, Any]:
    """Interval around an estimate.

    Parameters
    ----------
    estimate, error : float or ndarray of shape (...)
        And its standard error.
    degrees_of_freedom : float or ndarray of shape (...)
        Of the error.
    confidence : float
    low, high : float
        Where what is estimated cannot leave.

    Returns
    -------
    lower, upper : ndarray of shape (...), float where that is ()
    """
    reach = stdtrit(degrees_of_freedom, 0.5 + confidence / 2) * error
    return tuple(_float_or_array(np.clip(end, low, high)) for end in (estimate - reach, estimate + reach))


def mean_interval(values: Any, confidence: float, low: float = -np.inf, high: float = np.inf) -> tuple[Any, Any]:
    """Interval of the mean of independent values, along the first axis.

    Parameters
    ----------
    values : ndarray of shape (n, ...)
    confidence : float
    low, high : float
        Where the mean cannot leave.

    Returns
    -------
    lower, upper : ndarray of shape (...), float where that is ()
        NaN for a single value: it tells nothing of the variance.
    """
    values = np.asarray(values, dtype=np.float64)
    n, mean = len(values), values.mean(axis=0)
    error = values.std(axis=0, ddof=1) / np.sqrt(n) if n > 1 else np.full(mean.shape, np.nan)
    return student_interval(mean, error, max(n - 1, 1), confidence, low, high)


def _float_or_array(value):
    """A number without axes as a float, an array as it is."""
    return float(value) if np.ndim(value) == 0 else value
