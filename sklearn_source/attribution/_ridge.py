"""Ridge regression on features of the training rows, and its leave-one-out predictions in closed form."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from ..gradients.algebra import even_chunks
from ..utils._config import bytes_for

# Regularizations looked at, in powers of ten of the mean eigenvalue; largest first, which is what ties go to.
_GRID = np.linspace(6, -6, 49)
_ROWS = 4096  # whose predictions are formed together


class Ridge:
    """``w = (X^T X + lambda)^-1 X^T z`` for any targets z and any lambda, from one decomposition.

    Parameters
    ----------
    features : Tensor (N, k)
        X; decomposed in float64, over rows or columns, whichever are fewer. Kept, not copied: of its coordinates in the
        eigenbasis, in float64, what the ``memory_budget`` allows is held, else they are formed anew at each use.
    """

    def __init__(self, features):
        self._features, self._held = features, None
        n_rows, width = features.shape
        over_columns = width <= n_rows
        if over_columns:
            gram = torch.zeros(width, width, dtype=torch.float64, device=features.device)
            for rows in even_chunks(n_rows, _ROWS):
                X = features[rows].double()
                gram.addmm_(X.T, X)
        else:
            X = features.double()
            gram = X @ X.T
        values, vectors = torch.linalg.eigh(gram)
        # What the rounding of the features leaves of a zero is left out: lambda may be zero.
        precision = max(torch.finfo(features.dtype).eps ** 2, torch.finfo(torch.float64).eps)
        kept = values > values[-1].clamp(min=torch.finfo(torch.float64).tiny) * precision * max(features.shape)
        self.eigenvalues, vectors = values[kept], vectors[:, kept]
        self._vectors = vectors if over_columns else X.T @ vectors / self.eigenvalues.sqrt()  # (k, r)
        if 8 * n_rows * len(self.eigenvalues) <= bytes_for("ridge_coordinates"):
            held = features.new_empty(n_rows, len(self.eigenvalues), dtype=torch.float64)
            for rows in even_chunks(n_rows, _ROWS):
                held[rows] = self._coordinates(rows)
            self._held = held

    def _coordinates(self, rows):
        """Some rows in the eigenbasis, (rows, r)."""
        return self._features[rows].double() @ self._vectors if self._held is None else self._held[rows]

    def smoother(self, regularization, out=None, scale=1.0):
        """``X (X^T X + lambda)^-1`` (N, k), lambda = 0 the pseudo-inverse's: times ``X^T`` it is the hat matrix.

        Parameters
        ----------
        regularization : float
        out : Tensor (N, k), optional
            Where to write it; None: a new one, of the features' dtype.
        scale : float, default=1.0
            What it is multiplied by.
        """
        out = torch.empty_like(self._features) if out is None else out
        inverse = scale / (self.eigenvalues + regularization)
        for rows in even_chunks(len(out), _ROWS):
            out[rows] = ((self._coordinates(rows) * inverse) @ self._vectors.T).to(out.dtype)
        return out

    def left_out(self, targets, regularizations):
        """Every row's prediction by the regression on the other rows' targets: (N, n) for n lambdas.

        ``(H z)_m`` without row m is ``((H z)_m - H_mm z_m) / (1 - H_mm)``: one decomposition gives all refits.
        """
        return torch.cat([predictions for _, predictions in self._left_out(targets, regularizations)])

    def left_out_errors(self, targets, outputs, regularizations):
        """Mean squares of what :meth:`left_out` is off from ``outputs`` (N,) by: (n,)."""
        total = 0.0
        for rows, predictions in self._left_out(targets, regularizations):
            total = total + (predictions - outputs[rows, None]).square().sum(0)
        return total / len(outputs)

    def _left_out(self, targets, regularizations):
        """Rows and their predictions, some at a time."""
        inverse = 1 / (
            self.eigenvalues[:, None] + torch.as_tensor(regularizations, dtype=torch.float64).to(self.eigenvalues)
        )
        chunks = even_chunks(len(targets), _ROWS)
        coefficients = sum(self._coordinates(rows).T @ targets[rows] for rows in chunks)[:, None] * inverse
        for rows in chunks:
            own, z = self._coordinates(rows), targets[rows, None]
            leverage = own.square() @ inverse
            yield rows, (own @ coefficients - leverage * z) / (1 - leverage)


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
        return ridge.left_out_errors(targets, outputs, mean * 10.0 ** np.atleast_1d(powers)).cpu().numpy()

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
