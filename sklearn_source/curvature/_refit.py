"""The Gauss-Newton solution for other weights of the rows: what rows of a group do together."""

from __future__ import annotations

import functools

import numpy as np
import torch

from ._dual import gram, on_columns
from ._fisher_sample import FisherSample

# Cholesky factors that are kept, and how many are taken for other weights before the eigenvectors, at the cost of some
# ten, serve them all.
_FACTORS, _MOST_FACTORS = 2, 10
# A factor for another weight makes conjugate gradients converge: the ratio of the weights bounds the condition.
_NEAR, _TOLERANCE, _MAX_ITERATIONS = 1.5, 1e-11, 40
# Steps that they take, about, where weights differ by some per cent; each costs two products with every vector.
_ITERATIONS = 8
# Leverage, at the most, of the columns that stand for others. Where it is 1 each is alone in its direction, and as many
# directions are there of which nothing is known: measured on a language model, .99 made predictions fifty times too
# large, .5 four times; digits, where predictions are right, have .09 and .15.
_MOST_LEVERAGE = 0.3
_PROBES = 32


class GaussNewtonRefit:
    """``u^T (H_w + D)^-1 v`` where ``H_w = (1/N) sum_m w_m H_m`` for any weights w of the rows.

    With ``R`` Fisher columns of the rows, ``H = R^T R``, and ``K = R D^-1 R^T``,

        u^T (H_w + D)^-1 v = u^T D^-1 v - (R D^-1 u)^T (W^-1 + K)^-1 (R D^-1 v)

    (Woodbury), rows of weight zero left away: all layers are coupled, and each removed row takes along the curvature
    that it held.

    Parameters
    ----------
    stream : FisherStream
        Of one checkpoint, in no metric.
    size : int
        Fisher columns, about, that stand for all of them.
    scale : list of (float or tensor (groups, out, in)), one per block
        ``D^-1``: nonnegative.
    """

    def __init__(self, stream, size, scale):
        self._scale = scale
        sample = FisherSample(stream, size)
        self._by_chance = torch.as_tensor(sample.by_chance)
        batches = list(sample.batches())
        self._columns = [[column for (column,) in batch] for batch, _ in batches]
        self._rows = np.concatenate([rows for _, rows in batches]) if batches else np.zeros(0, dtype=int)
        self._K = gram(self._columns, scale)
        self._factors, self._n_factors, self._spectrum = {}, 0, None

    @functools.cached_property
    def has_enough_columns(self):
        """Whether the columns that stand for others are many enough: by their mean leverage in ``K (K + I)^-1``.

        Estimated by random signs (Hutchinson); a fixed seed, as for the columns.
        """
        chance = self._by_chance
        if float(self._K.diagonal()[chance].sum()) <= 0.25 * float(self._K.diagonal().sum()):
            return True
        generator = torch.Generator().manual_seed(0)
        signs = torch.randint(0, 2, (len(chance), _PROBES), generator=generator, dtype=self._K.dtype) * 2 - 1
        signs[~chance] = 0.0
        own = (signs * self._solve_all(1.0, signs)).sum() / (_PROBES * chance.sum())
        return 1.0 - float(own) <= _MOST_LEVERAGE

    def push(self, vectors):
        """``R D^-1 v`` of vectors (n, groups, out, in), one tensor per block: (n, n_columns) in float64."""
        return on_columns(self._columns, [v * s for v, s in zip(vectors, self._scale)])

    def inner(self, first, second):
        """``u^T D^-1 v`` of two sets of vectors: (n_first, n_second) in float64."""
        return sum((u * s).flatten(1).double() @ v.flatten(1).double().T for u, v, s in zip(first, second, self._scale))

    def forms(self, queries, changes, weights):
        """``u_q^T (H_w + D)^-1 v_g`` for each g with weights of its own.

        Parameters
        ----------
        queries, changes : pair (inner products with columns, from :meth:`push`; vectors)
            The queries u (n_query, ...), and the v (n_groups, ...).
        weights : ndarray of shape (n_groups, n_rows)
            Of the stream's rows; 1 as in training.

        Returns
        -------
        forms : Tensor (n_query, n_groups), float64
        """
        (on_queries, u), (on_changes, v) = queries, changes
        result = self.inner(u, v)
        for g, own in enumerate(weights):
            w = own[self._rows]
            kept = torch.as_tensor(w > 0)
            solved = self._solve(w, kept, on_changes[g].cpu()).to(result.device)
            result[:, g] -= on_queries @ solved
        return result

    def _solve(self, w, kept, right):
        """``(W^-1 + K)^-1 r`` on the columns kept, zeros elsewhere."""
        solved = torch.zeros_like(right)
        values, counts = np.unique(w, return_counts=True)
        usual = float(values[counts.argmax()]) if len(values) else 0.0
        others = torch.nonzero(torch.as_tensor(w != usual)).squeeze(1)
        if usual > 0 and len(others) < len(w) // 3:  # from the solution where all columns weigh alike
            sides = torch.zeros(len(right), 1 + len(others), dtype=right.dtype)
            sides[:, 0] = torch.where(kept, right, 0.0)
            sides[others, torch.arange(1, 1 + len(others))] = 1.0
            solved, *columns = self._solve_all(usual, sides).split([1, len(others)], dim=1)
            if len(others):  # a weight of zero adds infinity to the diagonal
                own = torch.as_tensor(w)[others].to(right.dtype)
                added = torch.diag(own * usual / (usual - own))
                solved = solved - columns[0] @ torch.linalg.solve(columns[0][others] + added, solved[others])
            return torch.where(kept, solved.squeeze(1), 0.0)
        if kept.any():
            matrix = self._K[kept][:, kept] + torch.diag(torch.as_tensor(1.0 / w[kept.numpy()]))
            factor = torch.linalg.cholesky(matrix)
            solved[kept] = torch.cholesky_solve(right[kept].unsqueeze(1), factor).squeeze(1)
        return solved

    def _solve_all(self, weight, sides):
        """``(I / weight + K)^-1`` of vectors (n_columns, n): groups of nearly one size share a factor."""
        if weight in self._factors:
            return torch.cholesky_solve(sides, self._factors[weight])
        near = min(self._factors, key=lambda other: _ratio(other, weight), default=None)
        few = 4 * _ITERATIONS * sides.shape[1] < len(sides) / 3
        if near is not None and few and _ratio(near, weight) < _NEAR:
            return self._conjugate_gradients(weight, sides, self._factors[near])
        if self._spectrum is None and self._n_factors < _MOST_FACTORS:
            matrix = self._K.clone()
            matrix.diagonal().add_(1.0 / weight)
            factor = torch.linalg.cholesky(matrix)
            self._n_factors += 1
            if len(self._factors) < _FACTORS:
                self._factors[weight] = factor
            return torch.cholesky_solve(sides, factor)
        if self._spectrum is None:
            self._spectrum = torch.linalg.eigh(self._K)
        values, vectors = self._spectrum
        return vectors @ ((vectors.T @ sides) / (values + 1.0 / weight)[:, None])

    def _conjugate_gradients(self, weight, sides, factor):
        """The same by iterations that a factor for a weight nearby preconditions."""
        solved, residual = torch.zeros_like(sides), sides.clone()
        direction = better = torch.cholesky_solve(residual, factor)
        size = (residual * better).sum(0)
        for _ in range(_MAX_ITERATIONS):
            applied = self._K @ direction + direction / weight
            step = size / (direction * applied).sum(0).clamp_min(1e-300)
            solved, residual = solved + step * direction, residual - step * applied
            if bool((residual.norm(dim=0) <= _TOLERANCE * sides.norm(dim=0)).all()):
                break
            better = torch.cholesky_solve(residual, factor)
            size, before = (residual * better).sum(0), size
            direction = better + size / before.clamp_min(1e-300) * direction
        return solved


def _ratio(one, other):
    return max(one / other, other / one)
