"""Stacks of matrices in one product with vectors sorted by the matrix that they meet, as experts are computed."""

from __future__ import annotations

import torch

from ...utils._compat_torch import grouped_mm
from ._layer_registry import substitutes


def _one_by_one(vectors, stack, *, offs, **others):
    """The same values by one product for each matrix, which has a reader; also where no vector meets it."""
    starts = [0, *offs.tolist()]
    parts = [
        torch.matmul(vectors[start:end], stack[number])
        for number, (start, end) in enumerate(zip(starts, starts[1:]))
    ]  # fmt: skip
    left = len(vectors) - starts[-1]
    return torch.cat([*parts, parts[0].new_zeros((left, stack.shape[2]))] if left else parts)


if grouped_mm is not None:

    @substitutes(grouped_mm)
    def _grouped_product(args, kwargs):
        """Of vectors (n, in) with a stack (groups, in, out); other forms are left to torch."""
        forms = [tensor.dim() for tensor in args]
        plain = kwargs.get("offs") is not None and kwargs.get("bias") is None and kwargs.get("out_dtype") is None
        return _one_by_one if forms == [2, 3] and plain else None
