"""The Gauss-Newton matrix of a sample of Fisher columns, all layers coupled, solved through inner products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ._dual import gram, on_columns
from ._eigen import Basis
from ._fitted_curvature import FittedCurvature, Phi
from ._sketch_bias import SketchBias
from ._spectral import Inverse
from ._weighted_gram import WeightedGram


class SampledGaussNewton(FittedCurvature):
    """``H = R^T R + penalty`` with R some thousand Fisher columns, kept in the form that layers give them.

    ``phi(H) v = phi(0) v + R^T W R v`` with W from the eigenvectors of ``R R^T``; inverses by
    ``(H + D)^-1 = D^-1 - D^-1 R^T (1 + R D^-1 R^T)^-1 R D^-1`` (Woodbury), for any diagonal D. In inverses, columns by
    chance weigh what :class:`SketchBias` says.

    Parameters
    ----------
    batches : list of list of gradients
        Columns, some at a time, one gradient per block, weights included.
    by_chance : ndarray of bool (n_columns,)
        Which of them stand for others too.
    shapes : list of (groups, out, in)
    penalties : list of (tensor (groups, out, in) or None)
        A diagonal of H.
    metric : list of float, optional
        One positive number per block: ``P^(1/2) H P^(1/2)``.
    """

    couples_blocks = True

    def __init__(self, batches, by_chance, shapes, penalties, metric=None):
        self._batches, self._by_chance, self._shapes, self._penalties = batches, by_chance, shapes, penalties
        self._metric = [1.0] * len(shapes) if metric is None else list(metric)
        self.bases = [Basis() for _ in shapes]
        self._spectrum = None
        self._solver = None, None

    def __getstate__(self):
        """Without what can be computed again."""
        return {**self.__dict__, "_spectrum": None, "_solver": (None, None)}

    def in_metric(self, metric: Sequence[float]) -> SampledGaussNewton:
        """``P^(1/2) H P^(1/2)`` for ``P`` one positive number per block."""
        return SampledGaussNewton(self._batches, self._by_chance, self._shapes, self._penalties, metric)

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
        if isinstance(phi, Inverse):
            return self._solve(phi, encoded)
        if any(penalty is not None for penalty in self._penalties):
            raise ValueError(
                "a sample of the Gauss-Newton matrix has no functions but the inverse where a weight decay was "
                "preconditioned too, as Adam's is: use AdamW, InfluenceFunctions, or curvature='ekfac'"
            )
        values, vectors = self._eigen()
        probe = torch.cat([values.new_zeros(1), values])
        at = phi(probe, 0)
        if any(not torch.allclose(phi(probe, i), at, rtol=1e-10, atol=0) for i in range(1, len(self._shapes))):
            raise ValueError(
                "a curvature that couples all parameters needs one damping and one weight_decay * rate for all of "
                "them; this network's parameter groups, or a penalty in its loss, make them differ. Use a "
                "block-diagonal curvature such as 'ekfac'"
            )
        weights = ((self._push(encoded) @ vectors) * ((at[1:] - at[0]) / values)) @ vectors.T
        return [v * float(at[0]) + c for v, c in zip(encoded, self._pull(weights, encoded[0]))]

    def mean_eigenvalue(self, block: int) -> float:
        """The mean over all parameters: the same for every block, as :meth:`scale` needs."""
        held = sum(float(d.double().sum()) * p for d, p in zip(self._penalties, self._metric) if d is not None)
        norms = sum(
            p * float(column.squared_norm().double().sum())
            for batch in self._batches
            for p, column in zip(self._metric, batch)
        )
        return (norms + held) / self._n_parameters

    def spectrum(self) -> list[torch.Tensor]:
        """The eigenvalues of the sample's columns, and a zero for every other direction."""
        values = self._eigen()[0]
        return [torch.cat([values, values.new_zeros(self._n_parameters - len(values))])]

    @property
    def _n_parameters(self):
        return sum(groups * out * inp for groups, out, inp in self._shapes)

    def _solve(self, phi, encoded):
        scale = []
        for shift, penalty, p, e in zip(phi.shifts, self._penalties, self._metric, encoded):
            added = shift if penalty is None else shift + p * penalty.to(e)
            if not (added > 0 if penalty is None else bool((added > 0).all())):
                raise ValueError(
                    "a sample of Fisher columns leaves directions without curvature: pass damping > 0, or "
                    "damping='trajectory'"
                )
            scale.append(1.0 / added)
        key = tuple(phi.shifts)
        if self._solver[0] != key:
            self._solver = key, self._solver_of(scale)
        root, length, factor = self._solver[1]
        alone = [v * s for v, s in zip(encoded, scale)]
        weights = root * torch.cholesky_solve((root * self._push(alone)).T, factor).T
        return [length * (v - s * c) for v, s, c in zip(alone, scale, self._pull(weights, encoded[0]))]

    def _solver_of(self, scale):
        """What columns and solutions are multiplied by, and the Cholesky factor of ``1 + R D^-1 R^T`` so."""
        K = gram(self._batches, [s * p for s, p in zip(scale, self._metric)])
        bias = SketchBias(WeightedGram(K), self._by_chance)
        a, length = bias.weights()
        root, K = bias.scaled(a)
        K.diagonal().add_(1.0)
        return root, length, torch.linalg.cholesky(K)

    def _eigen(self):
        if self._spectrum is None:
            values, vectors = torch.linalg.eigh(gram(self._batches, self._metric))
            keep = values > values[-1].clamp_min(0) * len(values) * torch.finfo(torch.float32).eps
            self._spectrum = values[keep], vectors[:, keep]
        return self._spectrum

    def _push(self, vectors):
        """``R P^(1/2) v``: (n, n_columns), float64, on the CPU."""
        return on_columns(self._batches, [v * p**0.5 for v, p in zip(vectors, self._metric)]).cpu()

    def _pull(self, weights, like):
        """``P^(1/2) R^T w`` of weights (n, n_columns), one tensor per block."""
        weights, total, start = weights.to(like), None, 0
        for batch in self._batches:
            own = weights[:, start : start + len(batch[0])]
            start += len(batch[0])
            parts = [column.combined(own) * p**0.5 for column, p in zip(batch, self._metric)]
            total = parts if total is None else [t.add_(part) for t, part in zip(total, parts)]
        return total
