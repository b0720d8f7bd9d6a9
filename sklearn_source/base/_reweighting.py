"""Other weights of the training rows, as users ask for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..rows import group_masks


def row_weights_asked(groups: Any, weights: Any, n_train: int, renormalize: bool) -> NDArray[np.float64]:
    """Weights of the rows in each training asked about, 1 as they were: (n_groups, n_train).

    Parameters
    ----------
    groups : see :func:`~sklearn_source.inspection.group_influence`, or None
        Removed.
    weights : array-like of shape (n_groups, n_train) or (n_train,), or None
        In place of groups.
    n_train : int
    renormalize : bool
        Whether the loss is a weighted mean, in which the weights of all rows have mean one.

    Raises
    ------
    ValueError
        If both or neither are given, weights are negative or not finite, or leave nothing to train on.
    """
    if (groups is None) == (weights is None):
        given = "both" if groups is not None else "neither"
        raise ValueError(f"expected either groups, to be removed, or weights of all rows, got {given}")
    if groups is not None:
        asked = 1.0 - group_masks(groups, n_train)[1]
    else:
        asked = np.atleast_2d(np.asarray(weights, dtype=np.float64))
        if asked.ndim != 2 or asked.shape[1] != n_train:
            raise ValueError(
                f"expected weights of shape (n_groups, n_train) = (n_groups, {n_train}), got {np.shape(weights)}"
            )
        if not np.isfinite(asked).all() or (asked < 0).any():
            raise ValueError("expected weights that are finite and not negative: 1 as in training, 0 for a row removed")
    totals = asked.sum(axis=1)
    if not (totals > 0).all():
        raise ValueError(f"expected rows that are left to train on, got none for group {int(totals.argmin())}")
    return asked * (n_train / totals)[:, None] if renormalize else asked
