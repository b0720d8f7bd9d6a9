"""Which of the rows given to ``fit`` a training chose from, and used after ``train_split``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ._count import count_rows
from ._row_stream import RowStream


def rows_after_split(dataset: Any, X: Any, n_given: int | None, split: bool) -> tuple[int, np.ndarray]:
    """Number of rows that training chose from, and the indices among them of those trained on.

    Parameters
    ----------
    dataset : Dataset
        What skorch trains on, after ``train_split``.
    X : object
        As given to ``fit``; of a stream, its RowStream.
    n_given : int or None
        Its length, where known.
    split : bool
        Whether a ``train_split`` was at work.

    Returns
    -------
    n_rows : int
        The length of the dataset before the split. It differs from `n_given` where the net makes other rows of what it
        is given (windows of a series, say).
    rows : ndarray of int64

    Raises
    ------
    ValueError
        If the rows trained on cannot be told.
    """
    rows = None
    while isinstance(dataset, torch.utils.data.Subset) and dataset is not X:
        indices = np.asarray(dataset.indices, dtype=np.int64)
        rows = indices if rows is None else indices[rows]
        dataset = dataset.dataset
    n_rows = len(X) if isinstance(X, RowStream) and dataset is X.source else count_rows(dataset)
    if n_rows is None:
        raise ValueError(
            f"expected a dataset of known length, but {type(dataset).__name__} has none: TrajectoryRecorder cannot "
            "tell which rows are trained on. Pass an IterableDataset to fit itself, use a map-style dataset, or leave "
            "the recorder out"
        )
    if split and rows is None and n_given not in (None, n_rows):
        raise ValueError(
            f"expected train_split to return torch.utils.data.Subset objects of the {n_given} rows handed to fit, but "
            f"it returned a dataset of {n_rows}: which rows are trained on cannot be told. Return Subset objects, or "
            "use train_split=None or skorch.helper.predefined_split"
        )
    return n_rows, np.arange(n_rows, dtype=np.int64) if rows is None else rows
