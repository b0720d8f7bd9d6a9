"""How many rows a container holds."""

from __future__ import annotations

from skorch.dataset import get_len


def n_rows_of(X):
    """Number of rows as skorch counts them, None where it cannot."""
    try:
        return None if X is None else get_len(X)
    except TypeError:  # a stream of rows
        return None
