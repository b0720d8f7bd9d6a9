"""The exact generalised Gauss-Newton matrix of small problems, through its Gram matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ._eigen import Basis
from ._fitted_curvature import FittedCurvature, Phi


class GramCurvature(FittedCurvature):
    """``H = R^T R`` with the root ``R`` (rows * outputs * checkpoints, parameters), never formed as a matrix.

    ``R P R^T = U diag(lambda) U^T`` has the nonzero eigenvalues of ``P^(1/2) H P^(1/2)``, whose eigenvectors are
    ``P^(1/2) R^T U lambda^(-1/2)``; so ``phi(M) v = phi(0) v + P^(1/2) R^T W R P^(1/2) v`` with
    ``W = U diag((phi(lambda) - phi(0)) / lambda) U^T``. All parameters are coupled: ``phi`` must be the same function
    for every block that some row moves.

    Parameters
    ----------
    root : tensor of shape (m, P), float64
    shapes : list of (groups, out, in)
        Of the blocks, in the order of the root's columns.
    dtype : torch.dtype
        Of the vectors that come out.
    metric : list of float, optional
        ``P``: one positive number per block.
    decomposed : (Tensor, Tensor), optional
        ``lambda`` and ``U``, where they are known.
    """

    couples_blocks = True

    def __init__(self, root, shapes, dtype, metric=None, decomposed=None):
        self._root, self._shapes, self._dtype = root, shapes, dtype
        self._sizes = [g * o * i for g, o, i in shapes]
        self.bases = [Basis() for _ in shapes]
        self._scaled = root
        if metric is not None:
            scale = torch.cat([root.new_full((size,), float(p) ** 0.5) for size, p in zip(self._sizes, metric)])
            self._scaled = root * scale
        sizes = [float(part.abs().max()) if part.numel() else 0.0 for part in self._scaled.split(self._sizes, dim=1)]
        self._moves = [size > 1e-10 * max(sizes) for size in sizes]
        if decomposed is not None:
            self._values, self._vectors = decomposed
            return
        values, vectors = torch.linalg.eigh(self._scaled @ self._scaled.T)
        # Values lost in rounding belong to the null space, where phi(0) is exact.
        keep = values > values[-1].clamp_min(0) * len(values) * torch.finfo(values.dtype).eps
        self._values, self._vectors = values[keep], vectors[:, keep]

    def pack(self):
        """Tensors by name, and a dict for JSON, that :meth:`unpack` makes the same of; of no metric."""
        tensors = {"root": self._root, "values": self._values, "vectors": self._vectors}
        dtype = str(self._dtype).removeprefix("torch.")
        return tensors, {"shapes": [list(shape) for shape in self._shapes], "dtype": dtype}

    @classmethod
    def unpack(cls, tensors, about):
        """The curvature that :meth:`pack` took apart, nothing decomposed again."""
        shapes, dtype = [tuple(shape) for shape in about["shapes"]], getattr(torch, about["dtype"])
        return cls(tensors["root"], shapes, dtype, decomposed=(tensors["values"], tensors["vectors"]))

    def in_metric(self, metric: Sequence[float]) -> GramCurvature:
        """``P^(1/2) H P^(1/2)`` for ``P`` one positive number per block."""
        return GramCurvature(self._root, self._shapes, self._dtype, metric)

    def encode(self, vectors: Sequence[Any]) -> list[torch.Tensor]:
        """Matrices formed: the coordinates stay the parameters'."""
        return [v if isinstance(v, torch.Tensor) else v.matrix() for v in vectors]

    def decode(self, encoded: list[torch.Tensor]) -> list[torch.Tensor]:
        """Nothing: the coordinates are the parameters'."""
        return list(encoded)

    def change(self, other: FittedCurvature, encoded: list[torch.Tensor]) -> list[torch.Tensor]:
        """Nothing: all of these curvatures share their coordinates."""
        return encoded

    def scale(self, phi: Phi, encoded: list[torch.Tensor]) -> list[torch.Tensor]:
        """``phi(H) v`` for per-block batches (n, groups, out, in)."""
        zero = self._values.new_zeros(1)
        probe = torch.cat([zero, self._values])
        coupled = [i for i, moves in enumerate(self._moves) if moves] or [0]
        at = phi(probe, coupled[0])
        for i in coupled[1:]:
            if not torch.allclose(phi(probe, i), at, rtol=1e-10, atol=0):
                raise ValueError(
                    "curvature='exact' couples all parameters and needs one damping and one weight_decay * rate for "
                    "all of them; this network's parameter groups, or a penalty in its loss, make them differ. Use a "
                    "block-diagonal curvature such as 'ekfac'"
                )
        flat = torch.cat([v.flatten(1) for v in encoded], dim=1).double()  # (n, P)
        weights = (at[1:] - at[0]) / self._values
        inner = (flat @ self._scaled.T) @ self._vectors * weights
        curved = (inner @ self._vectors.T @ self._scaled).split(self._sizes, dim=1)
        # A block that no row moves (frozen for a while) meets phi at zero alone, whatever its damping or decay.
        parts = [
            (v * (at[0] if moves else phi(zero, i)[0]) + c).to(self._dtype)
            for i, (v, c, moves) in enumerate(zip(flat.split(self._sizes, dim=1), curved, self._moves))
        ]
        return [part.reshape(-1, *shape) for part, shape in zip(parts, self._shapes)]

    def mean_eigenvalue(self, block: int) -> float:
        """The mean over all parameters: the same for every block, as :meth:`scale` needs."""
        return float(self._values.sum()) / sum(self._sizes)

    def spectrum(self) -> list[torch.Tensor]:
        """The nonzero eigenvalues, and a zero for every direction that no row moves."""
        null = sum(self._sizes) - len(self._values)
        return [torch.cat([self._values.cpu(), torch.zeros(null, dtype=torch.float64)])]
