"""One array for each input of a network, told from one array after the other for each row."""

from __future__ import annotations

from typing import Any


def has_multiple_inputs(X: Any) -> bool:
    """Whether a tuple or list holds one array per input of the net, rather than one row after the other.

    Parameters
    ----------
    X : object

    Returns
    -------
    several : bool
        A tuple always does. A list of vectors could be either, and is taken as rows; of arrays with more axes, as
        inputs.
    """
    if isinstance(X, tuple):
        return bool(X)
    return isinstance(X, list) and bool(X) and all(getattr(part, "ndim", 0) >= 2 for part in X)
