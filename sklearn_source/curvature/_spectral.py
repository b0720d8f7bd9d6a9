"""Functions of a curvature as methods ask for them: of its eigenvalues and what is added to these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class SpectralFunction:
    """``phi(sigma, block) = function(sigma + shift[block], block)``: a function of ``H + shift``.

    Read more in the :ref:`User Guide <add_curvature>`.

    Parameters
    ----------
    function : callable
        ``function(s, block)`` of values ``s = sigma + shift``, a tensor, to one of that shape; ``block`` is None where
        H couples them.
    shifts : list of float, one per block
        What a damping or a weight decay adds to the eigenvalues.
    ridge : float, default=0
        The function is about ``1 / (s + ridge)``: what is solved, where a curvature that couples its blocks improves on
        one that does not.
    solves : bool, default=False
        Whether it is about that, rather than what is left of a vector.
    """

    function: Callable[[torch.Tensor, int | None], torch.Tensor]
    shifts: Sequence[float]
    ridge: float = 0.0
    solves: bool = False

    def __call__(self, values: torch.Tensor, block: int) -> torch.Tensor:
        """``phi`` of eigenvalues of H."""
        return self.function(values + self.shifts[block], block)

    def resolvent(self, values: torch.Tensor, block: int) -> torch.Tensor:
        """``1 / (sigma + shift + ridge)`` of eigenvalues of H.

        Parameters
        ----------
        values : Tensor
            The eigenvalues.
        block : int
            The block that they are of.

        Returns
        -------
        inverses : Tensor
            Of that shape; zero where the sum is.
        """
        return inverse(values + (self.shifts[block] + self.ridge))


class Inverse(SpectralFunction):
    """``1 / (sigma + shift[block])``, zero where that is infinite."""

    def __init__(self, shifts: Sequence[float]):
        super().__init__(lambda s, _: inverse(s), shifts, solves=True)


def inverse(values: torch.Tensor) -> torch.Tensor:
    """``1 / s``, and zero where ``s`` is: directions that no row moves have no gradients either."""
    return torch.where(values > 0, 1 / values, torch.zeros_like(values))
