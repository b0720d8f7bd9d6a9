"""Rows of data of any kind, made showable."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from scipy import sparse

from ..rows import count_rows, has_multiple_inputs, take_rows, to_numpy


def take_showable(X, index):
    """The rows `index` of anything that a skorch net takes, without their targets and out of torch's hands.

    Returns
    -------
    rows : frame, ndarray, list of str, or dict or tuple of these
    """
    return _without_torch(take_rows(X, index))


def _without_torch(rows):
    if isinstance(rows, np.ndarray) or hasattr(rows, "iloc"):
        return rows
    if sparse.issparse(rows):
        return rows.toarray()
    if isinstance(rows, torch.Tensor):
        return to_numpy(rows)
    if isinstance(rows, Mapping):
        return {name: _without_torch(part) for name, part in rows.items()}
    if has_multiple_inputs(rows):
        return tuple(_without_torch(part) for part in rows)
    items = [rows[i] for i in range(count_rows(rows))]
    if isinstance(rows, torch.utils.data.Dataset):
        items = [item[0] if isinstance(item, tuple) else item for item in items]
    return _joined(items)


def _joined(items):
    if all(isinstance(item, str) for item in items):
        return list(items)
    return np.stack([item.numpy(force=True) if isinstance(item, torch.Tensor) else np.asarray(item) for item in items])
