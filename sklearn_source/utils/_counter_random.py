"""Random numbers keyed by what they are for: a counter-based generator."""

from __future__ import annotations

import numpy as np
import torch

_GOLDEN, _MIX1, _MIX2 = (np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def row_uniforms(keys, shape, *, seed, draw):
    """U(0, 1) numbers that depend on each row's key alone, not on its batch or place: (n, *shape) float64.

    ``seed`` and ``draw`` are integers, or one of them for each row.

    A counter-based generator (the finalizer of splitmix64, Steele et al. 2014) makes sampled Fisher matrices the same
    for every batch size and every order of the rows.
    """
    count = int(np.prod(shape, dtype=int))
    with np.errstate(over="ignore"):
        seed, draw = np.asarray(seed, dtype=np.uint64), np.asarray(draw, dtype=np.uint64)
        state = _mix(np.asarray(keys, dtype=np.uint64) + _mix(seed * _GOLDEN + draw))
        state = state[:, None] + _GOLDEN * np.arange(1, count + 1, dtype=np.uint64)
        bits = _mix(state) >> np.uint64(11)
    return torch.from_numpy((bits.astype(np.float64) + 0.5) * 2.0**-53).reshape(len(keys), *shape)


def _mix(z):
    with np.errstate(over="ignore"):
        z = (z ^ (z >> np.uint64(30))) * _MIX1
        z = (z ^ (z >> np.uint64(27))) * _MIX2
    return z ^ (z >> np.uint64(31))
