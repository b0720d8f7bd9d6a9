"""The training rows that a method was fitted on, to be taken by their places."""

from __future__ import annotations

from ..rows import is_stream


def fit_rows(method, X_train=None, y_train=None):
    """Training rows and targets as the method takes queries: those passed, else those of ``fit``.

    Parameters
    ----------
    method : fitted attribution method
    X_train, y_train : rows and targets, or None

    Returns
    -------
    rows : (X, y) or None
        None of a method that keeps no rows.

    Raises
    ------
    TypeError
        If they are a stream.
    """
    given = getattr(method, "_given", None) if X_train is None else (X_train, y_train)
    if given is None:
        return None
    if is_stream(given[0]):
        raise TypeError(
            "expected training rows that can be taken by their places, got a stream: pass the same rows as arrays or a "
            "map-style Dataset, X_train= and y_train="
        )
    return given[:2]
