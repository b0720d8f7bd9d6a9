"""Rows of a stream as a network reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..utils._tree import map_tensors
from ._row_stream import RowStream
from ._rows import Rows
from ._tensors import check_numbers, take_tensors


class StreamRows(Rows):
    """Rows read from a stream as they are asked for; those of the last reading are kept for the next."""

    def __init__(self, stream: RowStream, **options: Any):
        super().__init__(len(stream), **options)
        self._stream = stream
        self._last: tuple[np.ndarray, tuple[Any, Any]] | None = None
        x, _ = stream.rows(np.arange(1))
        self.has_y = stream.has_targets
        if isinstance(x, torch.Tensor) and x.ndim == 2:
            self.n_features = x.shape[1]

    def batch(self, indices: slice | ArrayLike) -> tuple[Any, Any]:
        index = self._index(indices)
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        if not len(index):
            return tuple(map_tensors(lambda rows: rows[:0], part) for part in self.batch([0]))
        last = self._last  # one object, as threads may share the rows
        if last is None or not np.array_equal(last[0], index):
            self._last = last = index, self._read(index)
        # Copies: a module may write into its input.
        x, y = (map_tensors(torch.clone, part) for part in last[1])
        return self._move(x), self._move(y, self._integers)

    def _read(self, index):
        if (np.diff(index) > 0).all():
            pair = self._stream.rows(index)
        else:
            rising, places = np.unique(index, return_inverse=True)
            pair = tuple(take_tensors(part, places) for part in self._stream.rows(rising))
        for name, part in zip("Xy", pair):
            check_numbers(part, name, self._dtype, rows=index)
        return pair

    def __getstate__(self):
        return {**vars(self), "_last": None}
