"""Membership in the k highest, where several values may tie for the last places."""

from __future__ import annotations

import numpy as np


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


def top_k_mask(scores, k):
    """1.0 for the k highest scores of each query, 0.0 for the others: (n_query, n_train)."""
    members = np.zeros(scores.shape)
    np.put_along_axis(members, top_k(scores, k), 1.0, axis=1)
    return members
