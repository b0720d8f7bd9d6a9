"""Rows of a data set, a batch at a time, as the net itself would read them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..utils._digest import bytes_digest, checksum, digest
from ..utils._tree import map_tensors

_READ = 4096  # rows at a time


def _checksum(tensor):
    return checksum({"": tensor.detach().cpu().contiguous()})


class Rows(ABC):
    """Rows of a data set on a network's device, floats in its dtype. Made by :meth:`Network.prepare`.

    Attributes
    ----------
    n_features : int or None
        Width of X where it is one 2-D array.
    has_y : bool
        Whether batches come with targets.
    draws : tuple of Draw or None
        Where the loss draws: whose examples the batches hold, (B, n_draws, ...).
    """

    n_features: int | None = None
    has_y = True
    draws: tuple[Any, ...] | None = None

    def __init__(self, n_rows: int, *, device: torch.device, dtype: torch.dtype, integer_targets: torch.dtype | None):
        self._n_rows, self._device, self._dtype, self._integers = n_rows, device, dtype, integer_targets
        self._contents: dict[str, str] = {}

    def __len__(self) -> int:
        return self._n_rows

    @property
    def given(self) -> Rows:
        """The rows as they were given, before any draw."""
        return self

    def with_draws(self, draws: Any) -> Rows:
        """The same rows as the examples of other draws; None, or rows that nothing is drawn for: these."""
        return self

    @abstractmethod
    def batch(self, indices: slice | ArrayLike) -> tuple[Any, Any]:
        """Rows by slice or integer indices (as in numpy).

        Returns
        -------
        x : Tensor, or dict or list of Tensor
        y : the same, or None where there are no targets
        """

    def targets(self, indices: slice | ArrayLike) -> Any:
        """Only the targets of :meth:`batch`."""
        return self.batch(indices)[1]

    def contents(self, indices: ArrayLike) -> str:
        """A digest of some rows as :meth:`batch` gives them, in every bit of them: 32 hexadecimal digits.

        Costs one reading of the rows.
        """
        index = self._index(indices)
        name = bytes_digest(index.tobytes())
        if name not in self._contents:
            starts = range(0, len(index), _READ)
            parts = (self.batch(index[start : start + _READ]) for start in starts)
            self._contents[name] = digest([map_tensors(_checksum, part) for part in parts])
        return self._contents[name]

    def _index(self, indices):
        if isinstance(indices, slice):
            return indices
        index = np.asarray(indices.cpu() if isinstance(indices, torch.Tensor) else indices)
        if index.dtype == bool:
            if len(index) != len(self):
                raise IndexError(f"expected a mask of {len(self)} rows, got {len(index)}")
            index = np.flatnonzero(index)
        index = index.reshape(-1).astype(np.int64, casting="same_kind" if index.size else "unsafe")
        if index.size and not (-len(self) <= index.min() and index.max() < len(self)):
            raise IndexError(f"expected row indices below {len(self)}, got {index.min()} to {index.max()}")
        return np.where(index < 0, index + len(self), index)

    def _move(self, tree, integers=None):
        def move(tensor):
            kind = self._dtype if tensor.is_floating_point() else integers
            return tensor.to(device=self._device, dtype=None if tensor.is_complex() else kind)

        return map_tensors(move, tree)
