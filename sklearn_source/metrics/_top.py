"""Membership in the k highest, where several values may tie for the last places."""

from __future__ import annotations

from numbers import Integral

import numpy as np


def check_k(k, n_train):
    """Refuse a k that is no number of training rows."""
    if not isinstance(k, Integral) or isinstance(k, bool) or not 1 <= k <= n_train:
        raise ValueError(f"k must be an integer from 1 to the number of training rows, {n_train}; got {k!r}")
    return int(k)


def top_k_membership(scores, k):
    """The probability that each row is among the k highest of its line, ties broken at random.

    Parameters
    ----------
    scores : ndarray of shape (n_query, n_train)
    k : int

    Returns
    -------
    membership : ndarray of shape (n_query, n_train)
        1 above the k-th highest score, 0 below, between where several equal it. Every line sums to k.
    """
    last = np.partition(scores, -k, axis=1)[:, -k, None]
    above, level = scores > last, scores == last
    share = (k - above.sum(axis=1)) / level.sum(axis=1)
    return above + level * share[:, None]


def top_k(scores, k):
    """Indices of the k highest of each line, highest first, equal ones in order: (n_query, k)."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]
