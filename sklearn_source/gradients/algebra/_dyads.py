"""Matrices as outer products: a randomised singular value decomposition, whose error is measured.

Halko, Martinsson, Tropp (2011), "Finding structure with randomness", SIAM Review 53(2), Algorithm 4.2, with columns
added until what is left is small enough, then truncated by the exact decomposition within what was found.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

# Columns of a sketch that are added at a time.
BLOCK = 16
# Below this the smaller side is taken whole: a sketch would be no narrower.
_WHOLE = 2 * BLOCK
# Share of the tolerance that is kept to, for the rounding of norms.
_STRICT = 1.0 - 1e-4
# How much of the tolerance the sketch may use up; the truncation has the rest.
_SKETCHED = 0.5


@dataclass(frozen=True)
class Dyads:
    """Outer products that add up to some matrices, one matrix's after the other's.

    Attributes
    ----------
    ranks : tensor of int64 (n,), on the CPU
        How many each matrix has.
    left : tensor (groups, sum of ranks, out)
    right : tensor (groups, sum of ranks, in)
    """

    ranks: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor


def dyads_of(matrices: torch.Tensor, tol: float, widest: int) -> Dyads:
    """The fewest outer products found for every matrix that leave no more than ``tol`` of its Frobenius norm.

    Parameters
    ----------
    matrices : tensor (n, groups, out, in)
        The groups' matrices of one n have as many outer products each, and an error together.
    tol : float
    widest : int
        Columns of a sketch that are worth their work: a matrix that needs more is taken apart line by line, without
        error.
    """
    if matrices.shape[3] < matrices.shape[2]:
        turned = dyads_of(matrices.mT, tol, widest)
        return Dyads(turned.ranks, turned.right, turned.left)
    n_lines, allowed = matrices.shape[2], _STRICT * tol * _norms(matrices)
    lines = torch.eye(n_lines, dtype=matrices.dtype, device=matrices.device)
    if bool(torch.isfinite(allowed).all()):
        if n_lines <= _WHOLE:
            basis, coordinates, left_over = lines.expand(*matrices.shape[:2], -1, -1), matrices, 0.0 * allowed
        else:
            basis, coordinates, left_over = _sketched(matrices, allowed, min(3 * n_lines // 4, widest))
        ranks, left, right = _truncated(basis, coordinates, left_over, allowed)
        # The error of the factors themselves, rounding included.
        apart = _norms(_less_product(matrices, left, right)) > allowed
    else:  # whoever meets them will say so
        apart = torch.ones(len(matrices), dtype=torch.bool, device=matrices.device)
        ranks, left, right = apart.long(), matrices[..., :1], matrices[:, :, :1]
    return _ragged(ranks, left, right, apart, matrices, lines)


def sketching_cost(shape: tuple[int, int, int], width: int) -> float:
    """What :func:`dyads_of` takes for a matrix from a sketch of so many columns, in multiplications.

    Products with the columns, and making them orthogonal and decomposing what they found, at the rates that these have
    beside large products (measured on a CPU: matrices of 256 x 785, from 16 to 100 columns).
    """
    groups, out, inp = shape
    return groups * (10.0 * out * inp * width + 35.0 * (out + inp) * width**2)


def _norms(matrices):
    """(n,) Frobenius norms, as float64 of sums in the matrices' own dtype."""
    return torch.linalg.vector_norm(matrices, dim=(1, 2, 3)).double()


def _less_product(matrices, left, right):
    """``M - left @ right``."""
    return torch.baddbmm(matrices.flatten(0, 1), left.flatten(0, 1), right.flatten(0, 1), alpha=-1).view_as(matrices)


def _sketched(matrices, allowed, widest):
    """Orthonormal columns Q (n, groups, out, k), ``Q^T M``, and the norm (n,) of ``M - Q Q^T M``."""
    generator = torch.Generator().manual_seed(0)
    basis = coordinates = None
    rest, unfinished = matrices, torch.ones_like(allowed, dtype=torch.bool)
    while True:
        noise = torch.randn(matrices.shape[3], BLOCK, generator=generator, dtype=torch.float64)
        columns = torch.linalg.qr(rest @ noise.to(matrices)).Q
        if basis is not None:  # rounding leaves some of the old directions in the rest
            columns = torch.linalg.qr(columns - basis @ (basis.mT @ columns)).Q
        columns = columns * unfinished[:, None, None, None]  # nothing hangs on those it comes with
        found = columns.mT @ matrices
        rest = _less_product(rest, columns, found)
        basis = columns if basis is None else torch.cat([basis, columns], dim=3)
        coordinates = found if coordinates is None else torch.cat([coordinates, found], dim=2)
        left_over = _norms(rest)
        unfinished = left_over > _SKETCHED * allowed
        if basis.shape[3] + BLOCK > widest or not bool(unfinished.any()):
            return basis, coordinates, left_over


def _truncated(basis, coordinates, left_over, allowed):
    """The fewest singular directions of ``basis @ coordinates`` that are enough: (n,), (n, g, out, k), (n, g, k, in).

    A matrix that has not enough of them keeps all. Those beyond a matrix's rank are zero.
    """
    wide = coordinates.double()
    squares, directions = torch.linalg.eigh(wide @ wide.mT)
    squares, directions = squares.flip(2).clamp_min(0), directions.flip(3)
    total = squares.sum(1)  # over the groups; (n, k), descending
    tails = total.flip(1).cumsum(1).flip(1)  # left by keeping the first j, j = 0, ..., k - 1
    ranks = (tails + left_over.square()[:, None] > (0.999 * allowed).square()[:, None]).sum(1)
    width = int(ranks.max())
    kept = directions[..., :width]
    within = torch.arange(width, device=ranks.device) < ranks[:, None]
    kept = (kept * within[:, None, None]).to(basis)
    return ranks, basis @ kept, kept.mT @ coordinates


def _ragged(ranks, left, right, apart, matrices, lines):
    """The components of every matrix in turn; those ``apart`` are their lines."""
    if not bool(apart.any()):
        within = torch.arange(left.shape[3], device=ranks.device) < ranks[:, None]
        return Dyads(ranks.cpu(), left.permute(1, 0, 3, 2)[:, within], right.transpose(0, 1)[:, within])
    lefts, rights, counts = [], [], []
    for own, u, w, whole, matrix in zip(ranks.tolist(), left, right, apart.tolist(), matrices):
        counts.append(len(lines) if whole else own)
        lefts.append(lines.expand(len(u), -1, -1) if whole else u[..., :own].mT)
        rights.append(matrix if whole else w[:, :own])
    return Dyads(torch.tensor(counts), torch.cat(lefts, dim=1), torch.cat(rights, dim=1))
