"""What a network gives for a few rows, kept beside what a cache holds: a guard that no description can miss.

A cache knows a network by a description of it, and no description sees everything that a network may read: a file, a
global switch, an object of compiled code. What it gives for a few rows shows most of that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

N_ROWS = 8
UNSEEN = (
    "something that it reads has changed and cannot be seen in its description (a file, a switch of a library, an "
    "object of compiled code)"
)


def spread(n_rows: int) -> np.ndarray:
    """The few rows among so many: neighbours may be of one kind."""
    return np.linspace(0, n_rows - 1, min(N_ROWS, n_rows)).round().astype(np.int64)


def summary(tensor: torch.Tensor) -> list[float]:
    """Two numbers that tell a tensor from others: its sum of squares, and an inner product with fixed numbers."""
    values = tensor.detach().to("cpu", torch.float64).reshape(-1)
    pattern = torch.cos(1.0 + torch.arange(len(values), dtype=torch.float64))
    return [float(values @ values), float(values @ pattern)]


def alike(kept: Sequence[float], present: Sequence[float], dtype: torch.dtype) -> bool:
    """Whether two lists of :func:`summary` are of the same tensors, up to the rounding of a data type."""
    if not isinstance(kept, list) or len(kept) != len(present):
        return False
    a, b = (np.asarray(numbers, dtype=np.float64).reshape(-1, 2) for numbers in (kept, present))
    size = np.maximum(np.sqrt(np.maximum(a[:, 0], b[:, 0])), 1e-300)  # of the tensors
    tolerance = 1e-7 if dtype == torch.float64 else 1e-3
    with np.errstate(invalid="ignore"):
        squares = np.abs(np.sqrt(a[:, 0]) - np.sqrt(b[:, 0])) <= tolerance * size
        products = np.abs(a[:, 1] - b[:, 1]) <= tolerance * size
    both_bad = ~np.isfinite(a) & ~np.isfinite(b)
    return bool(((squares | both_bad[:, 0]) & (products | both_bad.any(axis=1))).all())
