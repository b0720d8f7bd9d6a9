"""Rows of data of any kind, made showable."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from scipy import sparse

from ..rows import count_rows, has_multiple_inputs, take_rows, to_numpy

KINDS = ("image", "table", "text")


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


def kind_of(rows):
    """``"image"``, ``"table"`` or ``"text"``: what a few rows are shown as unless the user knows better."""
    if _is_text(rows):
        return "text"
    if hasattr(rows, "columns"):
        return "table"
    if isinstance(rows, np.ndarray) and rows.ndim == 2:
        return "table"
    if isinstance(rows, np.ndarray) and rows.ndim in (3, 4):
        return "image"
    shape = f" of shape {rows.shape}" if isinstance(rows, np.ndarray) else ""
    raise ValueError(
        f"no way to show rows that are a {type(rows).__name__}{shape}: pass inverse_transform=, which makes of rows a "
        "table (n, n_features), images (n, height, width[, channels]) or a list of str"
    )


def as_kind(rows, kind):
    """Rows in the form that a kind is drawn from: list of str, list of images, or array of objects (n, n_features)."""
    if kind == "text":
        if not _is_text(rows):
            raise ValueError(
                f'kind="text" shows strings, got rows that are a {type(rows).__name__}: pass inverse_transform=, which '
                "makes strings of them (a tokenizer's batch_decode)"
            )
        return [str(row) for row in rows]
    if kind == "image":
        return [as_image(row) for row in (rows.to_numpy() if hasattr(rows, "columns") else rows)]
    table = rows.to_numpy(dtype=object) if hasattr(rows, "columns") else np.asarray(rows)
    if table.ndim != 2:
        raise ValueError(f'kind="table" shows rows of shape (n_features,), got {table.shape[1:]}')
    return table


def as_image(row):
    """One image as (height, width) or (height, width, 3 or 4)."""
    row = np.asarray(row)
    side = int(round(row.size**0.5))
    if row.ndim == 1 and side * side == row.size:
        return row.reshape(side, side)
    if row.ndim == 2:
        return row
    if row.ndim == 3:
        if row.shape[-1] not in (1, 3, 4) and row.shape[0] in (1, 3, 4):  # torch's order
            row = np.moveaxis(row, 0, -1)
        if row.shape[-1] in (3, 4):
            return row
        if row.shape[-1] == 1:
            return row[..., 0]
    raise ValueError(
        f'kind="image" shows rows of shape (height, width), with or without 1, 3 or 4 channels, or a square flattened, '
        f"got {row.shape}: pass inverse_transform=, which brings rows into that shape"
    )


def column_names(rows, feature_names, n_features):
    """Names of a table's columns."""
    if feature_names is None:
        feature_names = getattr(rows, "columns", None)
    if feature_names is None:
        return [f"x{i}" for i in range(n_features)]
    names = [str(name) for name in feature_names]
    if len(names) != n_features:
        raise ValueError(f"expected {n_features} feature_names, one for each column, got {len(names)}")
    return names


def numeric_spread(rows):
    """Standard deviation of every column; NaN where its values are not numbers."""
    table = as_kind(rows, "table")
    spread = np.full(table.shape[1], np.nan)
    for j in range(table.shape[1]):
        values = numbers(table[:, j])
        if values is not None:
            spread[j] = np.nanstd(values) if np.isfinite(values).any() else 0.0
    return spread


def numbers(values):
    """Values as float64, or None where they are something else."""
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        return None


def _is_text(rows):
    if isinstance(rows, list):
        return bool(rows) and all(isinstance(row, str) for row in rows)
    if hasattr(rows, "columns"):
        return False
    values = np.asarray(rows) if isinstance(rows, np.ndarray) or hasattr(rows, "iloc") else None
    if values is None or values.ndim != 1:
        return False
    return values.dtype.kind in "UT" or (values.dtype.kind == "O" and all(isinstance(value, str) for value in values))
