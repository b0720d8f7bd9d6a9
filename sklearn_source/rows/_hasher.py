"""Fingerprints of the rows of one container: an array, a table, a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy import sparse

from ._multiple_inputs import has_multiple_inputs
from ._table_hashes import hash_table, named_hashes


def hash_batch(tree: Any) -> np.ndarray | None:
    """Fingerprints of a batch of inputs, or of targets, as an iterator gives it: those of the same rows elsewhere."""
    return Hasher()(tree, as_skorch=True)


class Hasher:
    """Fingerprints of one container, None where it cannot be read cheaply.

    Parameters
    ----------
    exact : bool, default=False
        As in :func:`row_hashes`.
    """

    def __init__(self, exact=False):
        self._exact = exact

    def __call__(self, data, as_skorch=False):
        if isinstance(data, Mapping):
            return named_hashes(data, lambda value: self(value, as_skorch))
        if _are_inputs(data, as_skorch):
            return self({str(position): part for position, part in enumerate(data)}, as_skorch)
        if hasattr(data, "iloc") or hasattr(data, "to_numpy"):
            return self._of_frame(data)
        if sparse.issparse(data):
            return hash_table(data.tocsr(), lambda rows: rows.toarray(), self._exact)
        try:
            if isinstance(data, torch.Tensor):
                data = data.detach().cpu()
                # NumPy has no bfloat16.
                data = data.float() if data.is_floating_point() and data.dtype != torch.float64 else data
            array = np.asarray(data)
            if array.dtype == object:
                array = array.astype(np.float64)
        except (TypeError, ValueError):
            return None
        if array.dtype.kind not in "buif" or array.ndim == 0:
            return None
        table = array.reshape(len(array), -1) if len(array) else array.reshape(0, 1)
        return hash_table(table, np.asarray, self._exact)

    def _of_frame(self, frame):
        """A pandas (or alike) frame: its columns side by side, so that it agrees with the array of its values."""
        if getattr(frame, "ndim", 2) == 1:
            return self(frame.to_numpy())
        columns = [np.asarray(frame[name].to_numpy()) for name in frame.columns]
        if not columns or any(column.dtype.kind not in "buif" for column in columns):
            return None
        return hash_table(np.column_stack(columns), np.asarray, self._exact)


def _are_inputs(data, as_skorch):
    """Whether a tuple or list is one array for each input."""
    if isinstance(data, tuple) or as_skorch and isinstance(data, list):
        return bool(data) and all(getattr(part, "ndim", 0) >= 1 for part in data)
    return has_multiple_inputs(data)
