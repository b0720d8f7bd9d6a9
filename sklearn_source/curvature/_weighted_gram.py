"""Solutions with a Gram matrix and weights of its columns, many of which differ in few of them."""

from __future__ import annotations

import numpy as np
import torch

# Cholesky factors that are kept, and how many are taken for other weights before the eigenvectors, at the cost of some
# ten, serve them all.
_FACTORS, _MOST_FACTORS = 2, 10
# A factor for another weight makes conjugate gradients converge: the ratio of the weights bounds the condition.
_NEAR, _TOLERANCE, _MAX_ITERATIONS = 1.5, 1e-11, 40
# Share of columns with weights of their own up to which solving for each of them by a factor that is there costs less
# than a factor of its own.
_FEW = 1 / 6
_NOTHING = np.finfo(np.float64).tiny  # weights of which one over is no number


def factored(matrix):
    """The Cholesky factor of an identity, or weights over one, plus a Gram matrix.

    Raises
    ------
    ValueError
        If rounding has made negative eigenvalues that are larger than what is added.
    """
    try:
        return torch.linalg.cholesky(matrix)
    except torch.linalg.LinAlgError as error:
        raise ValueError(
            "expected a damping beside which the rounding of gradients is small (about 1e-7 of the curvature's largest "
            "eigenvalue in float32), got less: pass a larger damping, or train the network in float64"
        ) from error


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
        if usual > 0 and len(others) < _FEW * len(w):
            return self._near_alike(usual, torch.as_tensor(w).to(right.dtype), others, right)
        if kept.any():
            matrix = self.K[kept][:, kept] + torch.diag(torch.as_tensor(1.0 / w[kept.numpy()]))
            factor = factored(matrix)
            solved[kept] = torch.cholesky_solve(right[kept].unsqueeze(1), factor).squeeze(1)
        return solved

    def _near_alike(self, usual, w, others, right):
        """The solution where most columns weigh ``usual``, by a factor for this weight or one nearby.

        With ``B = I / b + K`` factored and S what ``1 / w`` has beyond ``1 / b`` in the columns ``others``,
        ``(B + S)^-1`` follows from ``B^-1`` of these columns alone (Woodbury; of a column left away S is infinite). For
        another b than ``usual`` that preconditions conjugate gradients of the one vector.
        """
        base = min(self._factors, key=lambda weight: _ratio(weight, usual), default=usual)
        base = base if _ratio(base, usual) < _NEAR else usual
        others = others[w[others] != base]
        sides = torch.zeros(len(right), len(others), dtype=right.dtype)
        sides[others, torch.arange(len(others))] = 1.0
        first = torch.where(w > 0, right, 0.0)
        columns = self.solve_all(base, torch.cat([sides, first[:, None]], dim=1))
        columns, alone = columns[:, :-1], columns[:, -1]
        core = columns[others] + torch.diag(w[others] * base / (base - w[others]))
        core = torch.linalg.lu_factor(core) if len(others) else None

        def corrected(vector):
            if core is not None:
                vector = vector - columns @ torch.linalg.lu_solve(*core, vector[others, None])[:, 0]
            return torch.where(w > 0, vector, 0.0)

        solved = corrected(alone)
        if base == usual:
            return solved
        shift = torch.where(w > 0, 1.0 / w, 0.0)

        def applied(vector):
            return torch.where(w > 0, self.K @ vector, 0.0) + shift * vector

        return _conjugate_gradients(
            applied, lambda vector: corrected(self.solve_all(base, vector[:, None])[:, 0]), first, solved
        )

    def solve_all(self, weight, sides):
        """``(I / weight + K)^-1`` of vectors (n_columns, n)."""
        if weight in self._factors:
            return torch.cholesky_solve(sides, self._factors[weight])
        if self._spectrum is None and self._n_factors < _MOST_FACTORS:
            matrix = self.K.clone()
            matrix.diagonal().add_(1.0 / weight)
            factor = factored(matrix)
            self._n_factors += 1
            if len(self._factors) < _FACTORS:
                self._factors[weight] = factor
            return torch.cholesky_solve(sides, factor)
        if self._spectrum is None:
            self._spectrum = torch.linalg.eigh(self.K)
        values, vectors = self._spectrum
        return vectors @ ((vectors.T @ sides) / (values + 1.0 / weight)[:, None])


def _conjugate_gradients(apply, precondition, right, solved):
    """``A^-1 r`` from a first guess, for A and a preconditioner given as functions of a vector (n,)."""
    residual = right - apply(solved)
    direction = better = precondition(residual)
    size = residual @ better
    for _ in range(_MAX_ITERATIONS):
        if bool(residual.norm() <= _TOLERANCE * right.norm()):
            break
        image = apply(direction)
        step = size / (direction @ image).clamp_min(1e-300)
        solved, residual = solved + step * direction, residual - step * image
        better = precondition(residual)
        size, before = residual @ better, size
        direction = better + size / before.clamp_min(1e-300) * direction
    return solved


def _ratio(one, other):
    return max(one / other, other / one)
