"""Curvature across layers: a block-diagonal curvature corrected in a space of a few dimensions per vector.

A block-diagonal H lets every layer correct the whole residual by itself, so that what it solves comes out several times
too large on networks of several layers. The directions that it finds are good; how far to go along them is found
anew from Fisher columns of all layers at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ._coupled_space import CoupledSpace
from ._fitted_curvature import FittedCurvature, Phi
from ._spectral import SpectralFunction


class CoupledCurvature(FittedCurvature):
    """``phi(H) v`` by projection onto directions that a block-diagonal curvature M finds.

    With ``V`` orthonormal, spanning the blocks of ``phi(M) v`` (and, with ``n_iter``, those of ``(M + ridge)^-1 r``
    for the residual r of what is found so far), ``phi(H) v = V phi(V^T H V) V^T v``. Of several functions of one vector
    the first decides on the space; the others are those of M but for what they do within it. With ``n_iter=0`` the
    first is solved for within it, and the others are those of M, times one number: H against M along what is solved.

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
        space = CoupledSpace(self._to_iterate() if self.n_iter else self, encoded, first)
        for _ in range(self.n_iter):
            if not space.extend():
                break
        if self.n_iter:
            space.report()
            projected = space.project(lambda values: first.function(values, None))
            return [projected] + [space.correct(phi) for phi in phis[1:]]
        # One direction per block says how far to go along it, and how fast the whole wears down. It mixes many
        # curvatures: an exponential of H within so few directions would be that of none of them.
        return [space.share()] + [space.paced(phi) for phi in phis[1:]]

    def _to_iterate(self):
        """The same, with columns in a form that is worth its making for several rounds."""
        return CoupledCurvature(self.base, self.rows.formed(), self.n_iter, self._metric, self._tol)

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
