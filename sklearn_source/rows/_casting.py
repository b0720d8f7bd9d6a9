"""Queries in the numbers and shapes of the training rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse


def cast_real(array: np.ndarray, dtype: Any, name: str) -> np.ndarray:
    """An array in another kind of real numbers.

    Parameters
    ----------
    array : ndarray
    dtype : numpy dtype
    name : str
        What the error calls it.

    Raises
    ------
    ValueError
        If it holds complex numbers, whose imaginary parts would be lost.
    """
    if array.dtype.kind == "c" and np.dtype(dtype).kind != "c":
        raise ValueError(f"expected real numbers in {name}, got {array.dtype}")
    return array.astype(dtype, copy=False)


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
        If the training rows were integers and these have fractions, or if targets were an array and these are none.
    """
    if y is not None and y_shape is not None and not isinstance(y, np.ndarray):
        raise ValueError(f"expected y as an array of targets, like that of fit, got a {type(y).__name__}")
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
