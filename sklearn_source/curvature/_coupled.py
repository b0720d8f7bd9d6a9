"""Curvature across layers: a block-diagonal curvature corrected in a space of a few dimensions per vector.

A block-diagonal H lets every layer correct the whole residual by itself, so that what it solves comes out several times
too large on networks of several layers. The directions that it finds are good; how far to go along them is found
anew from Fisher columns of all layers at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning

from ..gradients.algebra import even_chunks
from ..utils._warnings import warn
from ._fitted_curvature import FittedCurvature, Phi
from ._spectral import SpectralFunction, inverse

# A solve that leaves more than this share of its right-hand side is said.
_STALLED = 0.5
# Bytes of the vectors, in float64, that elementwise work goes over at a time: they stay in a cache.
_CHUNK_BYTES = 8 * 2**20
# One ridge solves; what is an integral over the training asks for more once that equation is solved.
_RIDGES = (1.0, 10.0, 100.0)


class CoupledCurvature(FittedCurvature):
    """``phi(H) v`` by projection onto directions that a block-diagonal curvature M finds.

    With ``V`` orthonormal, spanning the blocks of ``phi(M) v`` (and, with ``n_iter``, those of ``(M + ridge)^-1 r``
    for the residual r of what is found so far), ``phi(H) v = V phi(V^T H V) V^T v``. Of several functions of one vector
    the first decides on the space; the others are those of M but for what they do within it.

    Parameters
    ----------
    base : FittedCurvature
        M, its blocks apart.
    rows : JointRows
        ``H = R^T R``.
    n_iter : int
        Rounds of further directions, one per block each.
    metric : list of float, optional
        What :meth:`in_metric` was given.
    tol : float, optional
        What :meth:`within` was given.
    """

    def __init__(self, base, rows, n_iter, metric=None, tol=None):
        self.base, self.rows, self.n_iter, self._metric, self._tol = base, rows, n_iter, metric, tol
        self.bases = base.bases

    def in_metric(self, metric: Sequence[float]) -> CoupledCurvature:
        """``P^(1/2) H P^(1/2)`` for ``P`` one positive number per block."""
        return CoupledCurvature(self.base.in_metric(metric), self.rows, self.n_iter, list(metric), self._tol)

    def within(self, tol: float | None) -> CoupledCurvature:
        """Directions may have the error ``tol`` where only how far to go along them is found from the columns."""
        return CoupledCurvature(self.base, self.rows, self.n_iter, self._metric, None if self.n_iter else tol)

    def encode(self, vectors: Sequence[Any]) -> list[torch.Tensor]:
        """Into the eigencoordinates of M."""
        return self.base.encode(vectors)

    def decode(self, encoded: list[torch.Tensor]) -> list[torch.Tensor]:
        """Back into parameters' coordinates."""
        return self.base.decode(encoded)

    def change(self, other: FittedCurvature, encoded: list[torch.Tensor]) -> list[torch.Tensor]:
        """From these eigencoordinates to those of ``other``."""
        return self.base.change(other, encoded)

    def mean_eigenvalue(self, block: int) -> float:
        """Of M, which has the trace of H."""
        return self.base.mean_eigenvalue(block)

    def spectrum(self) -> list[torch.Tensor]:
        """The eigenvalues of M."""
        return self.base.spectrum()

    def bytes_per_query(self, n_parameters: int, itemsize: int) -> int:
        """The directions, and what they are on every column."""
        return (self.n_iter + 1) * (n_parameters + len(self.bases) * self.rows.n_columns) * itemsize

    def scale(self, phi: Phi, encoded: list[torch.Tensor]) -> list[torch.Tensor]:
        """``phi(H)`` of vectors in eigencoordinates."""
        return self.scale_all([phi], encoded)[0]

    def scale_all(self, phis: Sequence[Phi], encoded: list[torch.Tensor]) -> list[list[torch.Tensor]]:
        """Several functions of the same vectors, from one space."""
        first = phis[0]
        if not isinstance(first, SpectralFunction):
            raise TypeError(
                "a curvature that couples layers needs phi as a SpectralFunction, a function of eigenvalues plus a "
                f"shift per block, got {type(first).__name__}"
            )
        space = _Space(self, encoded, first)
        for _ in range(self.n_iter):
            if not space.extend():
                break
        if self.n_iter:
            space.report()
            projected = space.project(lambda values: first.function(values, None))
        else:  # what is solved, rather than what is integrated: layers' shares are too coarse for more
            projected = space.share()
        return [projected] + [space.correct(phi) for phi in phis[1:]]

    def push(self, vectors):
        """``R_b P^(1/2) v_b`` per block."""
        return self.rows.push(self._scaled(vectors), self._tol)

    def pull(self, weights):
        """``P^(1/2) R^T w`` per block."""
        return self._scaled(self.rows.pull(weights))

    def penalised(self, block, vectors):
        """The penalty of a block times vectors; None where there is none."""
        product = self.rows.penalised(block, vectors)
        return product if product is None or self._metric is None else product * self._metric[block]

    def _scaled(self, vectors):
        if self._metric is None:
            return vectors
        return [v if p == 1 else v * p**0.5 for v, p in zip(vectors, self._metric)]


class _Space:
    """The directions of some vectors, orthonormal within every block, and H on them."""

    def __init__(self, curvature, encoded, phi):
        self._curvature, self._encoded, self._phi = curvature, encoded, phi
        self._directions = [[] for _ in encoded]  # per block: (n, size) each
        self._blocks, self._pushed, self._inner, self._H = [], [], [], None
        self._residual = None
        ridges = [factor * phi.ridge for factor in _RIDGES] if phi.ridge else [0.0]
        self._ridges = torch.tensor(ridges, dtype=torch.float64, device=encoded[0].device)
        self._level = torch.zeros(len(encoded[0]), dtype=torch.long, device=encoded[0].device)
        self._add(curvature.base.scale(phi, encoded))

    def extend(self):
        """Add the directions in which M would have what is left of the equation solved; False where nothing is.

        Every vector goes its own way, whichever others it comes with: first the equation with the function's ridge,
        then those with larger ones.
        """
        ridges = self._ridges[self._level]
        residual = self._remainder(ridges)
        solved = self._residual < 1e2 * torch.finfo(residual[0].dtype).eps
        if bool((solved & (self._level == len(self._ridges) - 1)).all()):
            return False
        added = [torch.zeros_like(r) for r in residual]
        for ridge in ridges.unique():
            mine = ~solved & (ridges == ridge)
            solve = SpectralFunction(self._phi.function, self._phi.shifts, float(ridge)).resolvent
            for total, part in zip(added, self._curvature.base.scale(solve, residual)):
                total[mine] = part[mine]
        self._add(added)
        self._level = (self._level + solved.long()).clamp(max=len(self._ridges) - 1)
        return True

    def report(self):
        """Warn where the equation is far from solved."""
        self._remainder(self._ridges[torch.zeros_like(self._level)])
        worst = float(self._residual.max()) if len(self._residual) else 0.0
        if worst > _STALLED:
            warn(
                f"the coupled solve left a relative residual of {worst:.1g} after n_iter={self._curvature.n_iter} "
                "iterations: raise n_iter (or the damping of influence functions), or take coupling='layers'",
                ConvergenceWarning,
            )

    def project(self, function):
        """``V function(V^T (H + shift) V) V^T v``, one tensor per block."""
        return self._combined(self._coefficients(function))

    def share(self):
        """``V a`` with ``V^T (H + shift + ridge) V a = V^T v``: how far to go along each block's part of ``phi(M) v``.

        The ridge of a block is the one with which its part of ``phi(M) v`` solves this for H = M: none is needed where
        phi is an inverse, about ``1/h`` where it is an integral over the training.
        """
        inner = torch.stack(self._inner, dim=1)
        met = self._of_base().diagonal(dim1=1, dim2=2)
        sizes = self._sizes.clamp_min(torch.finfo(torch.float64).tiny)
        ridge = (inner / sizes - met).clamp_min(0.0)
        values, vectors = torch.linalg.eigh(self._H + torch.diag_embed(ridge))
        solved = inverse(values.clamp_min(0)).unsqueeze(2) * (vectors.mT @ inner.unsqueeze(2))
        return self._combined((vectors @ solved).squeeze(2))

    def correct(self, phi):
        """``phi(M) v + V [phi(H_V) - phi(M_V)] V^T v``."""
        change = self._coefficients(lambda values: phi.function(values, None))
        change -= self._coefficients(lambda values: phi.function(values, None), self._of_base())
        outside = self._curvature.base.scale(phi, self._encoded)
        return [u + v for u, v in zip(outside, self._combined(change))]

    def _add(self, vectors):
        added, sizes = [], []
        for block, vector in enumerate(vectors):
            flat, encoded = torch.empty_like(vector).flatten(1), self._encoded[block].flatten(1)
            size, inner = (torch.zeros(len(flat), dtype=torch.float64, device=flat.device) for _ in range(2))
            for some in _chunks(flat):
                part = vector[some].flatten(1).clone()
                length = part.norm(dim=1, keepdim=True)
                for _ in range(2):  # twice is enough (Kahan)
                    for old in self._directions[block]:
                        part -= (part * old[some]).sum(1, keepdim=True) * old[some]
                left = part.norm(dim=1, keepdim=True)
                # What rounding leaves of a direction that is there already is none.
                new = left > 1e3 * torch.finfo(part.dtype).eps * length
                part.div_(torch.where(new, left, torch.ones_like(left))).masked_fill_(~new, 0.0)
                flat[some], size[some], inner[some] = part, length.squeeze(1).double(), _dots(part, encoded[some])
            sizes.append(size)
            self._directions[block].append(flat)
            self._blocks.append(block)
            self._inner.append(inner)
            added.append(flat.view(vector.shape))
        self._sizes = torch.stack(sizes, dim=1)  # of the latest directions
        self._pushed += self._curvature.push(added)
        self._grow(added)

    def _grow(self, added):
        """Fill in the lines and columns of ``V^T (H + shift) V`` that belong to new directions."""
        n, old, size = len(added[0]), len(self._pushed) - len(added), len(self._pushed)
        matrix = torch.zeros(n, size, size, dtype=torch.float64, device=added[0].device)
        if self._H is not None:
            matrix[:, :old, :old] = self._H
        for i in range(old, size):
            block = self._blocks[i]
            penalty = self._curvature.penalised(block, added[i - old])
            for j in range(i + 1):
                entry = (self._pushed[i].double() * self._pushed[j]).sum(1)
                if i == j:
                    entry = entry + self._phi.shifts[block]
                if penalty is not None and self._blocks[j] == block:
                    other = self._directions[block][self._blocks[:j].count(block)]
                    entry = entry + (penalty.flatten(1).double() * other).sum(1)
                matrix[:, i, j] = matrix[:, j, i] = entry
        self._H = matrix

    def _of_base(self):
        """``V^T (M + shift) V``."""
        matrix = torch.zeros_like(self._H)
        shifts = self._phi.shifts
        places = [[i for i, b in enumerate(self._blocks) if b == block] for block in range(len(self._encoded))]
        widest = max(self._encoded, key=lambda e: e[0].numel()).flatten(1)
        for number in range(len(self._directions[0])):
            for some in _chunks(widest):
                vectors = [own[number][some].view(-1, *e.shape[1:]) for own, e in zip(self._directions, self._encoded)]
                products = self._curvature.base.scale(lambda values, block: values + shifts[block], vectors)
                for block, product in enumerate(products):
                    for j, other in zip(places[block], self._directions[block]):
                        matrix[some, places[block][number], j] = _dots(product.flatten(1), other[some])
        return matrix

    def _coefficients(self, function, matrix=None):
        """``function(matrix) V^T v``: (n, number of directions)."""
        values, vectors = torch.linalg.eigh(self._H if matrix is None else matrix)
        inner = torch.stack(self._inner, dim=1).unsqueeze(2)
        scaled = function(values.clamp_min(0)).unsqueeze(2) * (vectors.mT @ inner)
        return (vectors @ scaled).squeeze(2)

    def _combined(self, coefficients):
        """``V c``, one tensor per block."""
        total = [None] * len(self._encoded)
        counts = [0] * len(total)
        for i, block in enumerate(self._blocks):
            direction = self._directions[block][counts[block]]
            counts[block] += 1
            part = coefficients[:, i : i + 1].to(direction.dtype) * direction
            total[block] = part if total[block] is None else total[block].add_(part)
        return [vector.view(encoded.shape) for vector, encoded in zip(total, self._encoded)]

    def _remainder(self, ridges):
        """``v - (H + shift + ridge) x`` for the x found so far, a ridge for every vector."""
        coefficients = self._coefficients(lambda values: inverse(values + ridges[:, None]))
        x = self._combined(coefficients)
        weights = sum(p * c.unsqueeze(1).to(p.dtype) for p, c in zip(self._pushed, coefficients.T))
        residual = []
        for block, (v, u, product) in enumerate(zip(self._encoded, x, self._curvature.pull(weights))):
            added = (self._phi.shifts[block] + ridges).to(u.dtype).view(-1, *[1] * (u.ndim - 1))
            left = v - product - added * u
            penalty = self._curvature.penalised(block, u)
            residual.append(left if penalty is None else left - penalty)
        size = sum(v.flatten(1).double().square().sum(1) for v in self._encoded)
        left = sum(r.flatten(1).double().square().sum(1) for r in residual)
        self._residual = (left / size.clamp_min(torch.finfo(torch.float64).tiny)).sqrt()
        return residual


def _chunks(vectors):
    """Slices of vectors (n, size), for what is taken of every element: memory that a product of all would ask for."""
    return even_chunks(len(vectors), _CHUNK_BYTES // max(1, vectors[:1].numel() * 8))


def _dots(first, second):
    """(n,) inner products of vectors (n, size), in float64."""
    return (first.double() * second).sum(1)
