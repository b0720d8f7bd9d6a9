"""Slope and correlations of what was measured on what was predicted, with intervals by the jackknife."""

from __future__ import annotations

import numpy as np
from sklearn.utils import Bunch

from ._intervals import student_interval
from ._ranks import pearson, resampled_spearman

_LIMITS = {"slope": (-np.inf, np.inf), "correlation": (-1.0, 1.0), "rank_correlation": (-1.0, 1.0)}


def slope_of_tables(predicted, measured, confidence):
    """Pooled slope, each query about its own mean, and its interval: a float and a pair of floats.

    Parameters
    ----------
    predicted, measured : ndarray of shape (n_groups, n_query)
    confidence : float
    """
    slope, _, without = _pooled_slope(predicted, measured)
    return slope, _interval("slope", slope, _two_way_error(*without), _fewest(predicted.shape), confidence)


def agreement_of_tables(predicted, measured, confidence):
    """How groups that count for every query are foretold, each query about its own mean.

    Parameters
    ----------
    predicted, measured : ndarray of shape (n_groups, n_query)
    confidence : float

    Returns
    -------
    agreement : Bunch
        ``slope``, ``correlation``, ``rank_correlation``, their ``..._interval`` and ``per_query_...``.
    """
    n_groups, n_query = predicted.shape
    slope, per_query, without = _pooled_slope(predicted, measured)
    error = _two_way_error(*without)
    found = Bunch(slope=slope, slope_interval=_interval("slope", slope, error, _fewest(predicted.shape), confidence))
    for name, correlate in (("correlation", _resampled_pearson), ("rank_correlation", resampled_spearman)):
        counts = np.vstack([np.ones(n_groups), 1 - np.eye(n_groups)])
        values = np.full((1 + n_groups, n_query), np.nan)
        if n_groups >= 3:
            values = np.stack([correlate(p, m, counts) for p, m in zip(predicted.T, measured.T)], axis=1)
        own, left_out = values[0], values[1:]
        mean = own.mean()
        error = _two_way_error(
            (own.sum() - own) / max(n_query - 1, 1), left_out.mean(axis=-1), mean + (left_out - own) / n_query
        )
        found[name] = float(mean)
        found[f"{name}_interval"] = _interval(name, mean, error, _fewest(predicted.shape), confidence)
        found[f"per_query_{name}"] = own
    found.per_query_slope = per_query
    return found


def agreement_of_pairs(predicted, measured, query, n_query, confidence):
    """How groups that belong to a query each are foretold: slope through the origin, correlation over the groups.

    Parameters
    ----------
    predicted, measured : ndarray of shape (n_groups,)
        For each group's own query.
    query : ndarray of int, shape (n_groups,)
        Which that is.
    n_query : int
    confidence : float

    Returns
    -------
    agreement : Bunch
        As that of :func:`agreement_of_tables`.
    """
    queries = np.unique(query)
    counts = np.vstack([np.ones(len(query)), query != queries[:, None]])
    own = query == np.arange(n_query)[:, None]  # (n_query, n_groups)
    found = Bunch()
    for name, statistic, fewest in (
        ("slope", _resampled_origin_slope, 1),
        ("correlation", _resampled_pearson, 3),
        ("rank_correlation", resampled_spearman, 3),
    ):
        values, per_query = np.full(len(counts), np.nan), np.full(n_query, np.nan)
        enough = counts.sum(axis=1) >= fewest
        values[enough] = statistic(predicted, measured, counts[enough])
        enough = own.sum(axis=1) >= fewest
        per_query[enough] = statistic(predicted, measured, own[enough].astype(float))
        error = np.sqrt(_jackknife_variance(values[1:]))
        found[name], found[f"per_query_{name}"] = float(values[0]), per_query
        found[f"{name}_interval"] = _interval(name, values[0], error, len(queries), confidence)
    return found


def _pooled_slope(predicted, measured):
    """The slope of all queries, of each, and without a query, a group, a group of a query alone.

    Returns
    -------
    slope : float
        NaN where predictions do not vary.
    per_query : ndarray of shape (n_query,)
    without : tuple of ndarray
        (n_query,), (n_groups,), (n_groups, n_query)
    """
    x, y = predicted - predicted.mean(axis=0), measured - measured.mean(axis=0)
    x[:, np.ptp(predicted, axis=0) <= 1e-12 * np.abs(predicted).max(axis=0)] = 0.0  # rounding does not vary
    products, squares = (x * y).sum(axis=0), (x * x).sum(axis=0)
    refit = len(x) / max(len(x) - 1, 1)  # the mean moves too when a group leaves
    lost, lost_squares = refit * x * y, refit * x * x
    total, total_squares = products.sum(), squares.sum()
    without = (
        _ratio(total - products, total_squares - squares),
        _ratio(total - lost.sum(axis=1), total_squares - lost_squares.sum(axis=1)),
        _ratio(total - lost, total_squares - lost_squares),
    )
    return float(_ratio(total, total_squares)), _ratio(products, squares), without


def _ratio(numerator, denominator):
    """Their quotient, NaN where the denominator is zero."""
    numerator, denominator = np.asarray(numerator), np.asarray(denominator)
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def _resampled_origin_slope(predicted, measured, counts):
    """Slope through the origin in resamples (n_resamples, n) of (n,) pairs: (n_resamples,)."""
    return _ratio(counts @ (predicted * measured), counts @ (predicted * predicted))


def _resampled_pearson(predicted, measured, counts):
    """Pearson correlation in resamples (n_resamples, n) of (n,) pairs: (n_resamples,)."""
    sides = [(values - values.mean()) / (np.ptp(values) or 1.0) for values in (predicted, measured)]  # of any size
    return pearson(*(side[:, None] for side in sides), counts.T)


def _two_way_error(without_query, without_group, without_pair):
    """Standard error over other queries and other groups, the chance of both counted once.

    Queries differ by what they are and by what the groups happen to be: both are in what leaving out a query changes.
    The chance of groups that queries share is not; leaving out a group for all queries shows it, less what leaving it
    out for one query alone does, which was counted.
    """
    if len(without_group) < 3:
        return np.nan
    own = _jackknife_variance(without_pair).sum()
    between = _jackknife_variance(without_query) if len(without_query) > 1 else own
    return np.sqrt(between + np.maximum(0.0, _jackknife_variance(without_group) - own))


def _jackknife_variance(without):
    """Of a value, from what it is without each of n parts: (n, ...) -> (...); NaN for a single part."""
    return (len(without) - 1) * without.var(axis=0) if len(without) > 1 else np.full(without.shape[1:], np.nan)


def _fewest(shape):
    """The fewer of groups and queries, of which there are several."""
    return min([n for n in shape if n > 1], default=1)


def _interval(name, value, error, n, confidence):
    """Student's interval for a value whose error comes from n parts; NaN where one part tells nothing."""
    return student_interval(value, error, max(n - 1, 1), confidence, *_LIMITS[name])
