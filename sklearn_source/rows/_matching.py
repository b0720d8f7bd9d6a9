"""Which known row is this? Fingerprints meet fingerprints."""

from __future__ import annotations

import numpy as np


def match_rows(
    given: np.ndarray, known: np.ndarray, *, first: np.ndarray | None = None, reuse: bool = False
) -> np.ndarray:
    """For every given row a known one with the same fingerprint: of equal rows, the k-th given meets the k-th known.

    Parameters
    ----------
    given, known : ndarray of uint64, shapes (n_given,) and (n_known,)
        From :func:`row_hashes`.
    first : ndarray of bool, shape (n_known,), optional
        Of equal known rows, these are met before the others; else they are met in their order. Where `given` is `known`
        in its order, every row meets itself all the same.
    reuse : bool, default=False
        Whether a known row may be met again once all that equal it have been met; they then take turns. Otherwise
        each is met once at most, and the given rows left over meet none.

    Returns
    -------
    places : ndarray of int64, shape (n_given,)
        Positions in `known`; -1 for rows that meet none. Costs sorting both.
    """
    if np.array_equal(given, known):
        return np.arange(len(given))
    later = np.zeros(len(known), dtype=bool) if first is None else ~first
    order_given, order_known = np.argsort(given, kind="stable"), np.lexsort((later, known))
    a, b = given[order_given], known[order_known]
    start = np.searchsorted(b, a)
    n_equal = np.searchsorted(b, a, side="right") - start
    rank = np.arange(len(a)) - np.searchsorted(a, a)  # 0 for the first of equal given rows, then 1, ...
    if reuse:
        rank %= np.maximum(n_equal, 1)
    met = rank < n_equal
    places = np.full(len(a), -1, dtype=np.int64)
    places[order_given[met]] = order_known[(start + rank)[met]]
    return places


def require_same_rows(given: np.ndarray, known: np.ndarray) -> None:
    """Refuse rows other than those of ``fit``, or in another order.

    Parameters
    ----------
    given, known : ndarray of uint64, both of shape (n_train,)
        Fingerprints.

    Raises
    ------
    ValueError
    """
    places = match_rows(given, known)
    if np.array_equal(places, np.arange(len(known))):
        return
    n_others = int((places < 0).sum())
    raise ValueError(
        "expected the training rows given to fit, in the same order, got "
        + (f"{n_others} others" if n_others else "them in another one")
    )
