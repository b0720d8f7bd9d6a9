"""The fitted H as functions of it, ``phi(H) v``: what every fitted curvature gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch

# What phi is: eigenvalues of any shape and the number of a block, to values of that shape.
Phi = Callable[[torch.Tensor, int], torch.Tensor]


class FittedCurvature(ABC):
    """A fitted H, symmetric and positive semi-definite, as functions of it: ``phi(H) v``.

    Vectors are lists over blocks: of tensors (n, groups, out, in), n vectors at once. ``phi`` is called with
    eigenvalues, a tensor of any shape, and the number of a block, and gives a tensor of that shape.

    ``phi(H) v = decode(scale(phi, encode(v)))``. The three steps are apart because scores may meet the training rows in
    eigencoordinates or in parameters', whichever is less work, and because several phi meet one encoded vector.

    Read more in the :ref:`User Guide <curvature>`.

    Attributes
    ----------
    bases : list of Basis, one per block
        The coordinates that :meth:`encode` goes to, as two orthogonal factors. ``Basis()`` where these are the
        parameters' own; then :meth:`encode` and :meth:`decode` only form matrices.
    couples_blocks : bool
        Whether H is one matrix over all blocks, so that ``phi`` has to be the same for all of them.
    """

    bases: list[Any]
    couples_blocks = False

    @abstractmethod
    def encode(self, vectors: Sequence[Any]) -> list[torch.Tensor]:
        """Into eigencoordinates.

        Parameters
        ----------
        vectors : list of tensor (n, groups, out, in), one per block
            Or of gradients with a ``matrix()`` of that shape.

        Returns
        -------
        encoded : list of tensor (n, groups, out, in), one per block
            In eigencoordinates.
        """

    @abstractmethod
    def scale(self, phi: Phi, encoded: list[torch.Tensor]) -> list[torch.Tensor]:
        """``phi(H)`` of vectors that are in eigencoordinates, and stay there.

        Parameters
        ----------
        phi : callable
            ``phi(eigenvalues, block)`` gives a tensor of the eigenvalues' shape.
        encoded : list of tensor (n, groups, out, in), one per block
            From :meth:`encode`; left as they are.

        Returns
        -------
        scaled : list of tensor (n, groups, out, in), one per block
            In eigencoordinates.
        """

    @abstractmethod
    def decode(self, encoded: list[torch.Tensor]) -> list[torch.Tensor]:
        """Back into parameters' coordinates.

        Parameters
        ----------
        encoded : list of tensor (n, groups, out, in), one per block
            In eigencoordinates.

        Returns
        -------
        vectors : list of tensor (n, groups, out, in), one per block
            In parameters' coordinates.
        """

    @abstractmethod
    def change(self, other: FittedCurvature, encoded: list[torch.Tensor]) -> list[torch.Tensor]:
        """From these eigencoordinates to those of another curvature.

        Parameters
        ----------
        other : FittedCurvature
            Fitted by the same class to other weights.
        encoded : list of tensor (n, groups, out, in), one per block
            In the eigencoordinates of this one.

        Returns
        -------
        encoded : list of tensor (n, groups, out, in), one per block
            In those of ``other``.
        """

    @abstractmethod
    def in_metric(self, metric: Sequence[float]) -> FittedCurvature:
        """``P^(1/2) H P^(1/2)`` for ``P`` one positive number per block.

        Parameters
        ----------
        metric : list of float, one per block
            ``P``.

        Returns
        -------
        fitted : FittedCurvature
            A new one; this one is left as it is.
        """

    def within(self, tol: float | None) -> FittedCurvature:
        """The same for vectors that may have an error.

        Parameters
        ----------
        tol : float or None
            Relative to a vector's norm in a block. None: none.

        Returns
        -------
        fitted : FittedCurvature
            This one, unless an error spares work.
        """
        return self

    @abstractmethod
    def mean_eigenvalue(self, block: int) -> float:
        """Of a block: what a damping is measured by.

        Parameters
        ----------
        block : int
            Its position among the blocks.

        Returns
        -------
        mean : float
            Of the eigenvalues of H there, zeros included.
        """

    @abstractmethod
    def spectrum(self) -> list[torch.Tensor]:
        """All eigenvalues.

        Returns
        -------
        eigenvalues : list of tensor
            float64, on the CPU, of any shape: one per block, or one for all of them.
        """

    def scale_all(self, phis: Sequence[Phi], encoded: list[torch.Tensor]) -> list[list[torch.Tensor]]:
        """:meth:`scale` with several functions of the same vectors.

        Parameters
        ----------
        phis : list of callable
            Each as for :meth:`scale`.
        encoded : list of tensor (n, groups, out, in), one per block
            From :meth:`encode`; left as they are.

        Returns
        -------
        scaled : list of list of tensor (n, groups, out, in)
            For every function one tensor per block, in eigencoordinates.
        """
        return [self.scale(phi, encoded) for phi in phis]

    def combination(
        self, phi: Phi, gradients: Sequence[Sequence[Any]], n_rows: int
    ) -> tuple[list[Any], torch.Tensor] | None:
        """``P^(1/2) phi(P^(1/2) H P^(1/2)) P^(1/2) v``, P of :meth:`in_metric`, as sums of other vectors.

        Parameters
        ----------
        phi : callable
            ``phi(eigenvalues, block)`` gives a tensor of the eigenvalues' shape.
        gradients : list over batches of lists over blocks of gradients
            The vectors v, as layers give them.
        n_rows : int
            Rows that these will meet.

        Returns
        -------
        combination : (list of Factored or tensor, one per block; tensor (n, n_values)) or None
            What a :class:`~sklearn_source.base.Term` takes as ``values`` and ``mixture``. None unless overridden, and
            where matrices are less work.
        """
        return None

    def bytes_per_query(self, n_parameters: int, itemsize: int) -> int:
        """What :meth:`scale` holds per vector, beside the vector and the result.

        Parameters
        ----------
        n_parameters : int
            Numbers in a vector.
        itemsize : int
            Bytes of a number.

        Returns
        -------
        n_bytes : int
            0 unless overridden.
        """
        return 0

    def scale_(self, phi: Phi, encoded: list[torch.Tensor]) -> list[torch.Tensor]:
        """:meth:`scale` of coordinates that nobody else needs.

        Parameters
        ----------
        phi : callable
            ``phi(eigenvalues, block)`` gives a tensor of the eigenvalues' shape.
        encoded : list of tensor (n, groups, out, in), one per block
            From :meth:`encode`; they may be written into.

        Returns
        -------
        scaled : list of tensor (n, groups, out, in), one per block
            In eigencoordinates.
        """
        return self.scale(phi, encoded)

    def apply(self, phi: Phi, vectors: Sequence[Any]) -> list[torch.Tensor]:
        """``phi(H) v`` in parameters' coordinates.

        Parameters
        ----------
        phi : callable
            ``phi(eigenvalues, block)`` gives a tensor of the eigenvalues' shape.
        vectors : list of tensor (n, groups, out, in), one per block
            ``v``, or gradients with a ``matrix()`` of that shape.

        Returns
        -------
        products : list of tensor (n, groups, out, in), one per block
            ``decode(scale(phi, encode(vectors)))``.
        """
        return self.decode(self.scale(phi, self.encode(vectors)))
