"""What a network gives for a few rows, kept beside what a cache holds: a guard that no description can miss.

A cache knows a network by a description of it, and no description sees everything that a network may read: a file, a
global switch, an object of compiled code. What it gives for a few rows shows most of that.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch

N_ROWS = 8
UNSEEN = (
    "something that it reads has changed and cannot be seen in its description (a file, a switch of a library, an "
    "object of compiled code)"
)


def projected(rows: torch.Tensor) -> torch.Tensor:
    """An inner product of every row (n, ...) with fixed numbers: (n,) of float64, so that any change shows."""
    flat = rows.detach().reshape(len(rows), -1).double()
    return flat @ _numbers(flat.shape[1], flat.device)


@functools.lru_cache(maxsize=32)
def _numbers(n, device):
    return torch.cos(1.0 + torch.arange(n, dtype=torch.float64, device=device))


def alike(kept: Any, present: list[list[float]], dtype: torch.dtype) -> bool:
    """Whether two tables, a row for each quantity, are of the same network, up to the rounding of a data type."""
    try:
        a, b = np.asarray(kept, dtype=np.float64), np.asarray(present, dtype=np.float64)
    except (TypeError, ValueError):
        return False
    if a.shape != b.shape or not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return False
    a, b = (np.where(np.isfinite(c), c, 0.0) for c in (a, b))
    tolerance = 1e-7 if dtype == torch.float64 else 1e-3
    size = np.maximum(np.abs(a), np.abs(b)).max(axis=1, keepdims=True, initial=0.0)
    return bool((np.abs(a - b) <= tolerance * size).all())
