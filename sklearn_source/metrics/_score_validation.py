"""What the metrics ask of scores and of ground truth."""

from __future__ import annotations

from typing import Any

import numpy as np

_AS_RETRAINED = "score the queries and training rows of the truth, in its order"


def as_array(values: Any) -> np.ndarray:
    """Anything array-like; tensors of any kind and device as well."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() and values.element_size() < 4 else values
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:  # lines of different lengths, or something that is no array
        raise ValueError(f"expected an array of numbers, got a {type(values).__name__} ({error})") from error


def check_scores(scores: Any, n_query: int, n_train: int, remedy: str = _AS_RETRAINED) -> np.ndarray:
    """Scores as float64 of shape (n_query, n_train)."""
    scores = as_array(scores)
    if scores.dtype.kind not in "buif" or scores.shape != (n_query, n_train):
        raise ValueError(
            f"expected scores of shape (n_query, n_train) = ({n_query}, {n_train}), got {scores.dtype} of "
            f"shape {scores.shape}: {remedy}"
        )
    if not np.isfinite(scores).all():
        raise ValueError("expected finite scores, got NaN or infinity")
    return scores.astype(np.float64)


def check_table(scores: Any) -> np.ndarray:
    """Scores as float64 of shape (n_query, n_train), whatever numbers these are."""
    scores = as_array(scores)
    if scores.ndim != 2 or not scores.size:
        raise ValueError(f"expected scores of shape (n_query, n_train), got {scores.shape}")
    return check_scores(scores, *scores.shape)


def check_truth(truth: Any) -> tuple[np.ndarray, np.ndarray]:
    """Masks (n_subsets, n_train) and outputs (n_subsets, n_repeats, n_query) of a retraining."""
    try:
        masks, outputs = as_array(truth.masks), as_array(truth.outputs)
    except AttributeError:
        raise ValueError(
            "expected truth with attributes masks (n_subsets, n_train) and outputs (n_subsets, n_repeats, n_query), as "
            f"retrain_on_subsets returns it, got a {type(truth).__name__}"
        ) from None
    if masks.dtype != bool or masks.ndim != 2 or outputs.ndim != 3 or len(masks) != len(outputs):
        raise ValueError(
            "expected truth.masks as booleans (n_subsets, n_train) and truth.outputs as (n_subsets, n_repeats, "
            f"n_query), got {masks.dtype} {masks.shape} and {outputs.shape}"
        )
    if outputs.dtype.kind not in "buif":
        raise ValueError(f"expected truth.outputs as real numbers, got {outputs.dtype}")
    if not outputs.size or not masks.size:
        raise ValueError(
            "expected outputs of at least one network for one query, and one training row, in the truth, got "
            f"{outputs.shape} and masks {masks.shape}"
        )
    if not np.isfinite(outputs).all():
        bad = int((~np.isfinite(outputs)).any(axis=2).sum())
        raise ValueError(
            f"expected finite outputs in the truth, got NaN or infinity from {bad} of its networks, whose training "
            "diverged: retrain with a smaller learning rate"
        )
    return masks, outputs.astype(np.float64)
