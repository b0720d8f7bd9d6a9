"""Targets in numbers that a loss can read."""

from __future__ import annotations

from typing import Any

import numpy as np
from skorch import NeuralNet, NeuralNetClassifier


def refuse_dates(array: Any, name: str) -> None:
    """ValueError for dates and durations, which NumPy would turn into numbers of nobody's choice.

    Parameters
    ----------
    array : object
        Whatever is no array passes.
    name : str
        What the error calls it.
    """
    if getattr(getattr(array, "dtype", None), "kind", "") in ("M", "m"):
        raise ValueError(
            f"expected numbers in {name}, got {array.dtype}: turn dates into numbers as in training, seconds or days "
            "since one of them say"
        )


def numeric_targets(net: NeuralNet, y: Any) -> Any:
    """Targets as numbers, and as integers where they are class labels.

    Parameters
    ----------
    net : skorch.NeuralNet
    y : object
        Lists become arrays; what is no array then is left for the net.

    Raises
    ------
    ValueError
        If they are texts, or a classifier's are fractions.
    """
    if isinstance(y, list):
        y = np.asarray(y)
    if not isinstance(y, np.ndarray):
        return y
    refuse_dates(y, "y")
    if y.dtype.kind not in "biufc":
        try:
            y = y.astype(np.float64)
        except (TypeError, ValueError):
            raise ValueError(
                f"Unknown label type: expected numbers in y, got {y.dtype} such as {y.flat[0]!r}: encode labels as "
                "integers 0 to n_classes - 1, as the network was trained (LabelEncoder does)"
            ) from None
    if isinstance(net, NeuralNetClassifier) and y.ndim == 1 and y.dtype.kind in "biuf":
        if y.dtype.kind == "f" and not np.array_equal(y, y.round()):
            raise ValueError(
                "Unknown label type: expected class labels 0 to n_classes - 1 for a NeuralNetClassifier, got fractions "
                "in y: pass the labels that the network was trained on, or attribute a NeuralNetRegressor"
            )
        return y.astype(np.int64)
    return y
