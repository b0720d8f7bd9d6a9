"""Ridge regression on features of the training rows, and its leave-one-out predictions in closed form."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from ..gradients.algebra import even_chunks

# Regularizations looked at, in powers of ten of the mean eigenvalue; largest first, which is what ties go to.
_GRID = np.linspace(6, -6, 49)
_ROWS = 4096  # whose predictions are formed together


class Ridge:
    """``w = (X^T X + lambda)^-1 X^T z`` for any targets z and any lambda, from one decomposition.

    Parameters
    ----------
    features : Tensor (N, k)
        X; decomposed in float64, over rows or columns, whichever are fewer.
    """

    def __init__(self, features):
        X = features.double()
        over_columns = X.shape[1] <= X.shape[0]
        values, vectors = torch.linalg.eigh(X.T @ X if over_columns else X @ X.T)
        # What the rounding of the features leaves of a zero is left out: lambda may be zero.
        precision = max(torch.finfo(features.dtype).eps ** 2, torch.finfo(torch.float64).eps)
        kept = values > values[-1].clamp(min=torch.finfo(torch.float64).tiny) * precision * max(X.shape)
        self.eigenvalues, vectors = values[kept], vectors[:, kept]
        self._vectors = vectors if over_columns else X.T @ vectors / self.eigenvalues.sqrt()  # (k, r)
        self._coordinates = X @ self._vectors  # (N, r)

    def smoother(self, regularization):
        """``X (X^T X + lambda)^-1`` (N, k), lambda = 0 the pseudo-inverse's: times ``X^T`` it is the hat matrix."""
        return self._coordinates / (self.eigenvalues + regularization) @ self._vectors.T

    def left_out(self, targets, regularizations):
        """Every row's prediction by the regression on the other rows' targets: (N, n) for n lambdas.

        ``(H z)_m`` without row m is ``((H z)_m - H_mm z_m) / (1 - H_mm)``: one decomposition gives all refits.
        """
        inverse = 1 / (
            self.eigenvalues[:, None] + torch.as_tensor(regularizations, dtype=torch.float64).to(self.eigenvalues)
        )
        coefficients = (self._coordinates.T @ targets)[:, None] * inverse
        parts = []
        for rows in even_chunks(len(targets), _ROWS):
            own, z = self._coordinates[rows], targets[rows, None]
            leverage = own.square() @ inverse
            parts.append((own @ coefficients - leverage * z) / (1 - leverage))
        return torch.cat(parts)


def leave_one_out_regularization(ridge, targets, outputs):
    """The lambda with which targets of the other rows best predict every row's output.

    Parameters
    ----------
    ridge : Ridge
    targets, outputs : Tensor (N,) of float64

    Returns
    -------
    regularization : float
        Within a million times the mean eigenvalue, either way. 0 where there is nothing to regularize.
    """
    if not len(ridge.eigenvalues):
        return 0.0
    mean = float(ridge.eigenvalues.mean())

    def error(powers):
        predictions = ridge.left_out(targets, mean * 10.0 ** np.atleast_1d(powers))
        return (predictions - outputs[:, None]).square().mean(0).cpu().numpy()

    errors = error(_GRID)
    best = int(np.argmin(errors))
    # Between the neighbours: a choice among points of a grid would jump with the rounding of the features.
    bounds = _GRID[min(best + 1, len(_GRID) - 1)], _GRID[max(best - 1, 0)]
    refined = minimize_scalar(lambda power: error(power)[0], bounds=bounds, method="bounded", options={"xatol": 1e-6})
    power = refined.x if refined.fun < errors[best] else _GRID[best]
    return mean * 10.0**power


def working_response(values, slope, curvature):
    """Where each row's loss draws its measurement: a Newton step with the mean curvature, (N,)."""
    mean, square = curvature.mean(), slope.square().mean()
    r = mean if mean > 1e-6 * square else square
    return values if r == 0 else values - slope / r
