"""Queries in the numbers and shapes of the training rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse


def cast_like_training(X: Any, y: Any, form: Any, y_shape: tuple[int, ...] | None) -> tuple[Any, Any]:
    """Queries in the kind of numbers, and targets in the shape, that the training rows had.

    Parameters
    ----------
    X, y : from :func:`as_arrays`, or checked by scikit-learn
    form : from :func:`row_form`, of the training rows
    y_shape : tuple or None
        Shape of one training target, where targets were an array.

    Raises
    ------
    ValueError
        If the training rows were integers and these have fractions.
    """
    if isinstance(form, tuple) and (isinstance(X, np.ndarray) or sparse.issparse(X)):
        integers = X.dtype.kind in "iub"
        if form[1] and integers:
            X = X.astype(np.float32)
        elif not form[1] and not integers:
            if not np.array_equal(X, np.round(X)):
                raise ValueError(f"expected integers in X, as in fit, got {X.dtype} with fractions")
            X = X.astype(np.int64)
    if isinstance(y, np.ndarray) and y_shape is not None and y.shape[1:] != y_shape and len(y):
        if y[0].size == int(np.prod(y_shape)):
            y = y.reshape(len(y), *y_shape)
    return X, y
