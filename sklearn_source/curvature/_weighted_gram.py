"""Solutions with a Gram matrix and weights of its columns, many of which differ in few of them."""

from __future__ import annotations

import numpy as np
import torch

# Cholesky factors that are kept, and how many are taken for other weights before the eigenvectors, at the cost of some
# ten, serve them all.
_FACTORS, _MOST_FACTORS = 2, 10
# A factor for another weight makes conjugate gradients converge: the ratio of the weights bounds the condition.
_NEAR, _TOLERANCE, _MAX_ITERATIONS = 1.5, 1e-11, 40
# Steps that they take, about, where weights differ by some per cent; each costs two products with every vector.
_ITERATIONS = 8
_NOTHING = np.finfo(np.float64).tiny  # weights of which one over is no number


class WeightedGram:
    """``(W^-1 + K)^-1 r`` for any weights W of the columns; columns of weight zero are left away.

    Parameters
    ----------
    K : Tensor (n_columns, n_columns), float64
    """

    def __init__(self, K):
        self.K = K
        self._factors, self._n_factors, self._spectrum = {}, 0, None

    def solve(self, w, right):
        """``(W^-1 + K)^-1 r`` on the columns kept, zeros elsewhere.

        Parameters
        ----------
        w : ndarray (n_columns,)
        right : Tensor (n_columns,)

        Returns
        -------
        solved : Tensor (n_columns,)
        """
        w = np.where(w > _NOTHING, w, 0.0)
        kept = torch.as_tensor(w > 0)
        solved = torch.zeros_like(right)
        values, counts = np.unique(w, return_counts=True)
        usual = float(values[counts.argmax()]) if len(values) else 0.0
        others = torch.nonzero(torch.as_tensor(w != usual)).squeeze(1)
        if usual > 0 and len(others) < len(w) // 3:  # from the solution where all columns weigh alike
            sides = torch.zeros(len(right), 1 + len(others), dtype=right.dtype)
            sides[:, 0] = torch.where(kept, right, 0.0)
            sides[others, torch.arange(1, 1 + len(others))] = 1.0
            solved, *columns = self.solve_all(usual, sides).split([1, len(others)], dim=1)
            if len(others):  # a weight of zero adds infinity to the diagonal
                own = torch.as_tensor(w)[others].to(right.dtype)
                added = torch.diag(own * usual / (usual - own))
                solved = solved - columns[0] @ torch.linalg.solve(columns[0][others] + added, solved[others])
            return torch.where(kept, solved.squeeze(1), 0.0)
        if kept.any():
            matrix = self.K[kept][:, kept] + torch.diag(torch.as_tensor(1.0 / w[kept.numpy()]))
            factor = torch.linalg.cholesky(matrix)
            solved[kept] = torch.cholesky_solve(right[kept].unsqueeze(1), factor).squeeze(1)
        return solved

    def solve_all(self, weight, sides):
        """``(I / weight + K)^-1`` of vectors (n_columns, n): groups of nearly one size share a factor."""
        if weight in self._factors:
            return torch.cholesky_solve(sides, self._factors[weight])
        near = min(self._factors, key=lambda other: _ratio(other, weight), default=None)
        few = 4 * _ITERATIONS * sides.shape[1] < len(sides) / 3
        if near is not None and few and _ratio(near, weight) < _NEAR:
            return self._conjugate_gradients(weight, sides, self._factors[near])
        if self._spectrum is None and self._n_factors < _MOST_FACTORS:
            matrix = self.K.clone()
            matrix.diagonal().add_(1.0 / weight)
            factor = torch.linalg.cholesky(matrix)
            self._n_factors += 1
            if len(self._factors) < _FACTORS:
                self._factors[weight] = factor
            return torch.cholesky_solve(sides, factor)
        if self._spectrum is None:
            self._spectrum = torch.linalg.eigh(self.K)
        values, vectors = self._spectrum
        return vectors @ ((vectors.T @ sides) / (values + 1.0 / weight)[:, None])

    def _conjugate_gradients(self, weight, sides, factor):
        """The same by iterations that a factor for a weight nearby preconditions."""
        solved, residual = torch.zeros_like(sides), sides.clone()
        direction = better = torch.cholesky_solve(residual, factor)
        size = (residual * better).sum(0)
        for _ in range(_MAX_ITERATIONS):
            applied = self.K @ direction + direction / weight
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
