"""Rows named by index or mask, checked."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def row_indices(rows: ArrayLike, n_rows: int, what: str) -> np.ndarray:
    """Indices of rows that a user names by index or mask.

    Parameters
    ----------
    rows : array-like of int of shape (n,), or of bool of shape (n_rows,)
    n_rows : int
    what : str
        What the error calls them.

    Returns
    -------
    indices : ndarray of int64, shape (n,)
        As given: in their order, none left out.

    Raises
    ------
    ValueError
        If they are something else, or no rows, or one is named twice.
    """
    try:
        rows = np.asarray(rows)
    except (ValueError, TypeError) as error:
        raise ValueError(f"expected {what} as indices or a mask, got a {type(rows).__name__} ({error})") from error
    if rows.dtype == bool and rows.shape == (n_rows,):
        return np.flatnonzero(rows)
    rows = rows if rows.size else rows.astype(np.int64)
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or (rows.size and not 0 <= rows.min() <= rows.max() < n_rows):
        raise ValueError(
            f"expected {what} as indices from 0 to {n_rows - 1}, or a mask of the {n_rows} of them, got "
            f"{rows.dtype} of shape {rows.shape}"
        )
    values, counts = np.unique(rows, return_counts=True)
    if len(values) < rows.size:
        often = counts.argmax()
        raise ValueError(
            f"expected every row once in {what}, got {values[often]} {counts[often]} times: name each once, or give a "
            "mask"
        )
    return rows.astype(np.int64)
