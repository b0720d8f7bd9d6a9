"""How much each row weighed in a stage of the training."""

from __future__ import annotations

from typing import Any

import numpy as np


def draw_weights(
    recorded: Any, start: int, end: int, index: np.ndarray, hashes: np.ndarray | None, summed: bool
) -> np.ndarray | None:
    """Weights of the rows of a stage by how often they were drawn in some of its steps, with mean one.

    Parameters
    ----------
    recorded : Stage
    start, end : int
        The steps in ``(start, end]``.
    index : ndarray of int
        Positions, in the given data, of the rows that the stage trained on.
    hashes : ndarray of uint64 (n_rows,) or None
        Fingerprints of the rows given to ``fit``.
    summed : bool
        Whether a step follows the sum over its batch, in which every draw counts the same, and not the mean.

    Returns
    -------
    weights : ndarray of shape (len(index),) or None
        None where all rows weighed the same.
    """
    draws = recorded.draws_between(start, end)
    if draws is None or not draws.sum() > 0:
        return None
    draws = draws[int(summed)]
    draws = draws / draws.mean()
    if np.abs(draws - 1.0).max() < 1e-9:
        return None
    known = recorded.row_hashes
    if hashes is None or known is None or not (known.all() and hashes.all()):
        return draws  # matched in place
    unique, inverse = np.unique(known[recorded.rows], return_inverse=True)
    means = np.bincount(inverse, weights=draws) / np.bincount(inverse)
    return means[np.searchsorted(unique, hashes[index])]
