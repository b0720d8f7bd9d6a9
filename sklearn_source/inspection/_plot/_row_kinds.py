"""The kinds of rows that can be shown: images, tables and texts."""

from __future__ import annotations

import numpy as np

KINDS = ("image", "table", "text")


class NotShowable(ValueError):
    """Rows are of no kind that can be shown, or not of the one that was asked for."""


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
    raise NotShowable(
        f"expected rows that can be shown, got a {type(rows).__name__}{shape}: pass inverse_transform=, which makes "
        "of rows a table (n, n_features), images (n, height, width[, channels]) or a list of str"
    )


def as_kind(rows, kind):
    """Rows in the form that a kind is drawn from: list of str, list of images, or array of objects (n, n_features)."""
    if kind == "text":
        if not _is_text(rows):
            raise NotShowable(
                f'expected strings for kind="text", got a {type(rows).__name__}: pass inverse_transform=, '
                "which makes strings of them (a tokenizer's batch_decode)"
            )
        return [str(row) for row in rows]
    if kind == "image":
        return [as_image(row) for row in (rows.to_numpy() if hasattr(rows, "columns") else rows)]
    table = rows.to_numpy(dtype=object) if hasattr(rows, "columns") else np.asarray(rows)
    if table.ndim != 2:
        raise NotShowable(f'expected rows of shape (n_features,) for kind="table", got {table.shape[1:]}')
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
    raise NotShowable(
        'expected rows of shape (height, width) for kind="image", with or without 1, 3 or 4 channels, or a square '
        f"flattened, got {row.shape}: pass inverse_transform=, which brings rows into that shape"
    )


def column_names(rows, feature_names, n_features):
    """Names of a table's columns, a list of n_features str: those given, else those of a frame, else x0, x1, ..."""
    if feature_names is None:
        feature_names = getattr(rows, "columns", None)
    if feature_names is None:
        return [f"x{i}" for i in range(n_features)]
    names = [str(name) for name in feature_names]
    if len(names) != n_features:
        raise ValueError(f"expected {n_features} feature_names, one for each column, got {len(names)}")
    return names


def column_moments(rows):
    """Mean and standard deviation of every column of a table, both (n_features,); NaN where values are not numbers."""
    table = as_kind(rows, "table")
    moments = np.full((2, table.shape[1]), np.nan)
    for j in range(table.shape[1]):
        values = floats_or_none(table[:, j])
        if values is not None:
            known = np.isfinite(values).any()
            moments[:, j] = (np.nanmean(values), np.nanstd(values)) if known else (np.nan, 0.0)
    return moments


def floats_or_none(values):
    """Values as an array of float64, or None where they are something else."""
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        return None


def _is_text(rows):
    """Whether rows are strings: in a list, an array or a Series."""
    if isinstance(rows, list):
        return bool(rows) and all(isinstance(row, str) for row in rows)
    if hasattr(rows, "columns"):
        return False
    values = np.asarray(rows) if isinstance(rows, np.ndarray) or hasattr(rows, "iloc") else None
    if values is None or values.ndim != 1:
        return False
    return values.dtype.kind in "UT" or (values.dtype.kind == "O" and all(isinstance(value, str) for value in values))
