"""Which known row a given row is: fingerprints met by fingerprints."""

from __future__ import annotations

import numpy as np


def partners(given, recorded, first=None):
    """For every given hash the recorded row with the same one, each recorded row at most once.

    Parameters
    ----------
    given, recorded : ndarray of uint64
    first : ndarray of bool, shape (len(recorded),), optional
        Of equal rows, these are met first; else each in its order of appearance, the k-th by the k-th.

    Returns
    -------
    indices : ndarray of int64, shape (len(given),)
        -1: none.
    """
    if np.array_equal(given, recorded):
        return np.arange(len(given))
    later = np.zeros(len(recorded), dtype=bool) if first is None else ~first
    order_given, order_known = np.argsort(given, kind="stable"), np.lexsort((later, recorded))
    a, b = given[order_given], recorded[order_known]
    # The r-th of equal values in a sits r places after their first place in b, if b has that many.
    place = np.searchsorted(b, a) + np.arange(len(a)) - np.searchsorted(a, a)
    inside = np.minimum(place, len(b) - 1)
    met = (place < len(b)) & (b[inside] == a)
    partner = np.empty(len(a), dtype=np.int64)
    partner[order_given] = np.where(met, order_known[inside], -1)
    return partner
