"""Products of numbers rounded to bfloat16: eight bits each, the exponents of float32."""

from __future__ import annotations

from typing import Any

import torch

from ...utils._compat_torch import has_quick_bfloat16
from ...utils._warnings import warn


def in_bfloat16(queries: Any) -> Any:
    """One block's queries as they meet the rows in bfloat16.

    Their type is what tells the products so, see :func:`bfloat16_product`. Outer products and factored gradients stay
    as they are: they meet the rows in few operations already.

    Parameters
    ----------
    queries : tensor (n_query, size), Factored or LowRank
    """
    return queries.bfloat16() if isinstance(queries, torch.Tensor) else queries


def bfloat16_product(queries: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """``queries @ matrices^T`` of (n_query, size) in bfloat16 and (B, size), which is rounded to it: (n_query, B).

    Summed in float32 by torch's libraries, and rounded to bfloat16 once more as a whole: an entry is off by no more
    than ``3 u + O(u^2)`` times the product of the norms, ``u = 2^-8``.
    """
    return queries @ matrices.to(queries.dtype).T


def warn_of_emulation(device: torch.device) -> None:
    """Warn where bfloat16 is emulated: it is then slower than float32, not faster."""
    if not has_quick_bfloat16(device):
        warn(
            f"precision='bf16' on {device.type!r}, which has no instructions for bfloat16 (AVX512_BF16 or AMX of a "
            "processor, compute capability 8.0 of a GPU): the products are emulated and may take longer than those of "
            "precision=None"
        )
