"""Many rows' gradients of one block, in the form in which they meet vectors again and again with least work."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ._dense import Dense
from ._factored import Factored
from ._repeated import Repeated
from ._row_gradient import RowGradient
from ._scaled import Scaled


def joined(
    gradients: Sequence[RowGradient], left: torch.Tensor | None = None, right: torch.Tensor | None = None
) -> list[RowGradient]:
    """``left^T G_n right`` of several batches of rows, in their order, in as few parts as their form allows.

    One outer product a row: with its input once where rows share it. Matrices that are no more numbers than the
    factors: formed. Others are left as they are.

    Parameters
    ----------
    gradients : list of RowGradient
        All in one form, but that some may have been formed.
    left, right : tensor of shape (groups, out, out) and (groups, in, in), or None
        Bases; None stands for the identity.
    """
    scaled = [part for part in gradients if isinstance(part, Scaled)]
    if scaled and left is None and right is None:
        root = scaled[0].root
        if any(part.root is not root for part in scaled):
            return list(gradients)
        return [Scaled(part, root) for part in joined([part.gradient for part in scaled])]
    factored = [part for part in gradients if isinstance(part, Factored)]
    if factored:
        first, mixed = factored[0], len(factored) < len(gradients)
        if first.n_positions == 1 and not mixed and not (first.shape[0] > 1 and first.smaller_as_matrices):
            return [Repeated.of([part.rotate_factors(left, right) for part in factored])]
        if first.smaller_as_matrices or mixed:
            return [Dense(torch.cat([part.rotate(left, right).matrix() for part in gradients]))]
    return [part.rotate_factors(left, right) for part in gradients]


def formed(blocks: Sequence[Sequence[RowGradient]], n_bytes: int) -> list[list[RowGradient]]:
    """Several blocks' gradients, those with factors of several positions as matrices, as far as these fit.

    Parameters
    ----------
    blocks : list of list of RowGradient
        As :func:`joined` gives them.
    n_bytes : int
        That the matrices may take.
    """
    result = [list(parts) for parts in blocks]

    def saved(block):
        """Multiplications per number of the matrix, each time it is met: forming it, and turning the inputs."""
        first = blocks[block][0]
        return first.n_positions * (1 + first.shape[2] / first.shape[1])

    for block in sorted(range(len(blocks)), key=saved, reverse=True):
        first, n_rows = blocks[block][0], sum(map(len, blocks[block]))
        groups, n_out, n_in = first.shape
        needed = n_rows * groups * n_out * n_in * first.tensors()[-1].element_size()
        if isinstance(first, Factored) and first.n_positions > 1 and needed <= n_bytes:
            matrices, start = first.g.new_empty((n_rows, *first.shape)), 0
            for part in blocks[block]:
                part.matrix(out=matrices[start : start + len(part)])
                start += len(part)
            result[block] = [Dense(matrices)]
            n_bytes -= needed
    return result
