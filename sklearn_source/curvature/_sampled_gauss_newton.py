"""The Gauss-Newton matrix of a sample of Fisher columns, all layers coupled, solved through inner products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from ..gradients.algebra import add_inner, pairs_pay, to_meet
from ..utils._config import bytes_for
from ._dual import gram, on_columns
from ._eigen import Basis
from ._fitted_curvature import FittedCurvature, Phi
from ._sketch_bias import SketchBias
from ._spectral import Inverse, SpectralFunction
from ._weighted_gram import WeightedGram, factored


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
        self._nonzero, self._spectrum = None, (None, None)
        self._solver = None, None

    def __getstate__(self):
        """Without what can be computed again."""
        return {**self.__dict__, "_nonzero": None, "_spectrum": (None, None), "_solver": (None, None)}

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
        return self.scale_all([phi], encoded)[0]

    def scale_all(self, phis: Sequence[Phi], encoded: list[torch.Tensor]) -> list[list[torch.Tensor]]:
        """Several functions of the same vectors, which meet the columns once where these are no inverses."""
        pushed, scaled = None, []
        for phi in phis:
            if isinstance(phi, Inverse):
                scaled.append(self._solve(phi, encoded))
                continue
            pushed = self._push(encoded) if pushed is None else pushed
            outside, weights = self._function(phi, pushed)
            scaled.append([v * outside + c for v, c in zip(encoded, self._pull(weights, encoded[0]))])
        return scaled

    def combination(self, phi: Phi, gradients: Sequence[Sequence[Any]], n_rows: int) -> tuple[list, Any] | None:
        """Sums of the columns and of the vectors themselves, which meet rows as outer products: without matrices."""
        if not isinstance(phi, Inverse) or len(set(phi.shifts)) > 1 or phi.shifts[0] <= 0:
            return None
        shift = phi.shifts[0]
        if any(penalty is not None for penalty in self._penalties) or not self._batches:
            return None
        blocks = [[*columns, *vectors] for columns, vectors in zip(zip(*self._batches), zip(*gradients))]
        n_query, n_columns = sum(len(batch[0]) for batch in gradients), sum(len(b[0]) for b in self._batches)
        if not pairs_pay(blocks, n_query, n_columns, n_rows, bytes_for("fisher_columns")):
            return None
        values = [to_meet(parts, p) for parts, p in zip(blocks, self._metric)]
        vectors = [v[n_columns:] for v in values]
        root, length, factor = self._factor(phi)
        pushed = torch.cat([_met(vectors, batch) for batch in self._batches], dim=1).double().cpu() / shift
        weights = root * torch.cholesky_solve((root * pushed).T, factor).T
        mixture = torch.cat([-weights, torch.eye(n_query, dtype=weights.dtype)], dim=1) * (length / shift)
        return values, mixture.to(self._like.device)

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
        if self._nonzero is None:
            values = torch.linalg.eigvalsh(gram(self._batches, self._metric))
            self._nonzero = values[_more_than_rounding(values)]
        values = self._nonzero
        return [torch.cat([values, values.new_zeros(self._n_parameters - len(values))])]

    @property
    def _like(self):
        return self._batches[0][0].tensors()[-1] if self._batches else torch.zeros(0)

    @property
    def _n_parameters(self):
        return sum(groups * out * inp for groups, out, inp in self._shapes)

    def _solve(self, phi, encoded):
        root, length, factor = self._factor(phi)
        scale = self._inverse_of_added(phi)
        alone = [v * s for v, s in zip(encoded, scale)]
        weights = root * torch.cholesky_solve((root * self._push(alone)).T, factor).T
        return [length * (v - s * c) for v, s, c in zip(alone, scale, self._pull(weights, encoded[0]))]

    def _inverse_of_added(self, phi):
        """``D^-1`` of every block: what an inverse adds to the columns."""
        scale = []
        for shift, penalty, p in zip(phi.shifts, self._penalties, self._metric):
            added = shift if penalty is None else shift + p * penalty.to(self._like)
            if not (added > 0 if penalty is None else bool((added > 0).all())):
                raise ValueError(
                    "a sample of Fisher columns leaves directions without curvature: pass damping > 0, or "
                    "damping='trajectory'"
                )
            scale.append(1.0 / added)
        return scale

    def _factor(self, phi):
        """What columns and solutions are multiplied by, and the Cholesky factor of ``1 + R D^-1 R^T`` so."""
        key = tuple(phi.shifts)
        if self._solver[0] != key:
            K = gram(self._batches, [s * p for s, p in zip(self._inverse_of_added(phi), self._metric)])
            bias = SketchBias(WeightedGram(K), self._by_chance)
            a, length = bias.weights()
            root, K = bias.scaled(a)
            K.diagonal().add_(1.0)
            self._solver = key, (root, length, factored(K))
        return self._solver[1]

    def _function(self, phi, pushed):
        """``phi(H) v`` as what v is multiplied by outside of the columns, and weights of these.

        Of vectors on the columns, (n, n_columns). Columns by chance weigh what they should in ``1 / (s + 1/h)``, which
        an integral over the training is about; what is left after it is that of the same matrix.
        """
        if any(penalty is not None for penalty in self._penalties):
            raise ValueError(
                "a sample of the Gauss-Newton matrix has no functions but the inverse where a weight decay was "
                "preconditioned too, as Adam's is: use AdamW, InfluenceFunctions, or curvature='ekfac'"
            )
        root, length, values, vectors = self._eigen(phi)
        probe = torch.cat([values.new_zeros(1), values])
        at = phi(probe, 0)
        if any(not torch.allclose(phi(probe, i), at, rtol=1e-10, atol=0) for i in range(1, len(self._shapes))):
            raise ValueError(
                "a curvature that couples all parameters needs one damping and one weight_decay * rate for all of "
                "them; this network's parameter groups, or a penalty in its loss, make them differ. Use a "
                "block-diagonal curvature such as 'ekfac'"
            )
        length = length if getattr(phi, "solves", False) else 1.0
        weights = root * (((root * pushed) @ vectors * ((at[1:] - at[0]) / values)) @ vectors.T)
        return length * float(at[0]), length * weights

    def _eigen(self, phi):
        """Roots of the columns' weights, what solutions are multiplied by, eigenvalues and vectors of the Gram matrix.

        ``phi`` says what the columns are weighed for; where it does not, they are as they were drawn.
        """
        added = phi.shifts[0] + phi.ridge if isinstance(phi, SpectralFunction) else 0.0
        added = added if math.isfinite(added) else 0.0
        if self._spectrum[0] != added:
            K, a, length = gram(self._batches, self._metric), 1.0, 1.0
            bias = SketchBias(WeightedGram(K / (added or 1.0)), self._by_chance)
            if added:
                a, length = bias.weights()
            root = bias.scaled(a)[0]
            values, vectors = torch.linalg.eigh(root[:, None] * K * root)
            keep = _more_than_rounding(values)
            self._spectrum = added, (root, length, values[keep], vectors[:, keep])
        return self._spectrum[1]

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


def _met(vectors, columns):
    """Inner products of vectors with some columns: (n, n_columns)."""
    total = columns[0].tensors()[-1].new_zeros(len(vectors[0]), len(columns[0]))
    for own, column in zip(vectors, columns):
        total = add_inner(total, own, column)
    return total


def _more_than_rounding(values):
    """Which eigenvalues, ascending, of a Gram matrix are none of columns that others make up."""
    return values > values[-1:].clamp_min(0) * len(values) * torch.finfo(torch.float32).eps
