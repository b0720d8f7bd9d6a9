"""Block-diagonal curvature given by orthogonal bases and eigenvalues: EK-FAC and its simpler relatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..gradients.algebra import rotate_matrices
from ._fitted_curvature import FittedCurvature, Phi


@dataclass(frozen=True)
class Basis:
    """Coordinates of one block: an orthogonal basis per side of its matrices.

    Read more in the :ref:`User Guide <add_curvature>`.

    Parameters
    ----------
    left : Tensor (groups, out, out), optional
        The basis of the outputs' side, its vectors as columns; None: the identity.
    right : Tensor (groups, in, in), optional
        The basis of the inputs' side; None: the identity.
    """

    left: torch.Tensor | None = None
    right: torch.Tensor | None = None

    @property
    def trivial(self) -> bool:
        """Whether these are the parameters' own coordinates."""
        return self.left is None and self.right is None

    def inverse(self) -> Basis:
        """The change back into parameters' coordinates.

        Returns
        -------
        inverse : Basis
            Whose :meth:`encode` undoes that of this one.
        """
        return Basis(_transposed(self.left), _transposed(self.right))

    def then(self, other: Basis) -> Basis:
        """One basis for the change from coordinates in this one to those in another: half the work of two.

        Parameters
        ----------
        other : Basis
            Of the same block.

        Returns
        -------
        change : Basis
            ``change.encode(self.encode(M))`` is ``other.encode(M)``.
        """
        return Basis(_product(self.left, other.left), _product(self.right, other.right))

    def encode(self, matrices: torch.Tensor) -> torch.Tensor:
        """``left^T M right``.

        Parameters
        ----------
        matrices : Tensor (n, groups, out, in)
            ``M``, n matrices at once, in parameters' coordinates.

        Returns
        -------
        encoded : Tensor (n, groups, out, in)
            In coordinates of this basis.
        """
        return matrices if self.trivial else rotate_matrices(matrices, self.left, self.right)


def _transposed(q):
    return None if q is None else q.transpose(1, 2)


def _product(old, new):
    if old is None or new is None:
        return _transposed(old) if new is None else new
    return old.transpose(1, 2) @ new


class EigenCurvature(FittedCurvature):
    """``H = Q diag(Lambda) Q^T`` block by block, with ``Q = Q_S (x) Q_A``.

    Read more in the :ref:`User Guide <add_curvature>`.

    Parameters
    ----------
    bases : list of Basis, one per block
        ``Q``.
    eigenvalues : list of tensor (groups, out, in), one per block
        ``Lambda``, of the curvature of the *mean* per-row loss; nonnegative.

    See Also
    --------
    FittedCurvature : What the methods do.
    """

    def __init__(self, bases: list[Basis], eigenvalues: list[torch.Tensor]):
        self.bases, self.eigenvalues = bases, eigenvalues

    def encode(self, vectors: Sequence[Any]) -> list[torch.Tensor]:
        """Per block (n, groups, out, in) into eigencoordinates; factored gradients are materialised there."""
        return [_encode(basis, vector) for basis, vector in zip(self.bases, vectors)]

    def scale(self, phi: Phi, encoded: list[torch.Tensor]) -> list[torch.Tensor]:
        """Multiply eigencoordinates by ``phi(eigenvalues, block number)``."""
        return [phi(values, i) * vector for i, (values, vector) in enumerate(zip(self.eigenvalues, encoded))]

    def scale_(self, phi: Phi, encoded: list[torch.Tensor]) -> list[torch.Tensor]:
        """:meth:`scale` in place, of coordinates that nobody else needs."""
        for i, (values, vector) in enumerate(zip(self.eigenvalues, encoded)):
            # Not contiguous: some entries may share their memory, as gradients of a sum do.
            encoded[i] = vector.mul_(phi(values, i)) if vector.is_contiguous() else vector * phi(values, i)
        return encoded

    def decode(self, encoded: list[torch.Tensor]) -> list[torch.Tensor]:
        """Back to parameter coordinates."""
        return [basis.inverse().encode(vector) for basis, vector in zip(self.bases, encoded)]

    def change(self, other: FittedCurvature, encoded: list[torch.Tensor]) -> list[torch.Tensor]:
        """From these eigencoordinates to those of ``other``."""
        return [old.then(new).encode(v) for old, new, v in zip(self.bases, other.bases, encoded)]

    def in_metric(self, metric: Sequence[float]) -> EigenCurvature:
        """``P^(1/2) H P^(1/2)`` for ``P`` one positive number per block: the same bases, other eigenvalues."""
        return EigenCurvature(self.bases, [values * p for values, p in zip(self.eigenvalues, metric)])

    def mean_eigenvalue(self, block: int) -> float:
        """Over the elements of the block's matrix."""
        return float(self.eigenvalues[block].double().mean())

    def spectrum(self) -> list[torch.Tensor]:
        """All eigenvalues, per block, as float64 tensors on the CPU."""
        return [values.double().cpu() for values in self.eigenvalues]


def _encode(basis, vector):
    if isinstance(vector, torch.Tensor):
        return basis.encode(vector)
    return vector.rotate(basis.left, basis.right).matrix()
