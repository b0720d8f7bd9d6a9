"""What a network linearised at its weights would say without some of its training rows."""

from __future__ import annotations

import numpy as np


class LeftOut:
    """Ridge regression of the targets in the tangent kernel, and the same with rows left out, in closed form.

    ``A = K + lambda I``, fitted to targets less their mean: ``f = K A^-1 (y - m)``. Without the rows G, with
    ``b = [(A^-1)_GG]^-1 [A^-1 (y - m)]_G``: predictions fall by ``k_q A^-1_{:,G} b``, and ``b`` is what the targets of
    G are off from what is predicted of them then. The mean stays that of all rows. Sums of single rows' effects miss
    that rows which agree hold each other up.

    Parameters
    ----------
    kernel : TangentKernel
    share : float
        ``lambda``, of the trace of ``K``. A thousandth: as trained to the end; a hundredth: what is learnt early.
    weights : ndarray (n_query,), optional
        How many queries each of the kernel's stands for.

    Attributes
    ----------
    inverse : ndarray (n, n)
        ``A^-1``.
    likeness : ndarray (n, n)
        ``K A^-1``, of which rows hold which up, as cosines.
    lone_residuals : ndarray (n, n_outputs)
        Of every row by the others.

    References
    ----------
    .. [1] Rifkin, Lippert (2007), "Notes on Regularized Least Squares", MIT-CSAIL-TR-2007-025: leaving rows out.
    """

    def __init__(self, kernel, share, weights=None):
        n, trace = len(kernel.training), np.trace(kernel.training)
        ridge = share * trace if trace > 0 else 1.0
        self.inverse = np.linalg.inv(kernel.training + ridge * np.eye(n))
        self.inverse = (self.inverse + self.inverse.T) / 2
        self._dual = self.inverse @ (kernel.targets - kernel.targets.mean(axis=0))
        self._root = np.ones((len(kernel.errors), 1)) if weights is None else np.sqrt(weights)[:, None]
        self._reach = self._root * (kernel.queries @ self.inverse)
        held = np.eye(n) - ridge * self.inverse
        length = np.sqrt(np.maximum(np.diag(held), np.finfo(float).tiny))
        self.likeness = held / length / length[:, None]
        self.lone_residuals = self._dual / np.diag(self.inverse)[:, None]

    def weighed(self, errors):
        """Errors (n_query, n_outputs) as :meth:`moved` has predictions: times the root of their weights."""
        return self._root * errors

    def residuals(self, rows):
        """Targets of the rows less what is predicted without them all: (len(rows), n_outputs)."""
        return np.linalg.solve(self.inverse[np.ix_(rows, rows)], self._dual[rows])

    def moved(self, rows):
        """What the rows add to the queries' predictions, and their :meth:`residuals`."""
        own = self.residuals(rows)
        return self._reach[:, rows] @ own, own

    def all_residuals(self, rows):
        """Targets of all rows less what is predicted without ``rows`` and the row itself: (n, n_outputs)."""
        columns = self.inverse[:, rows]
        block = np.linalg.inv(self.inverse[np.ix_(rows, rows)])
        carried = columns @ block
        own = block @ self._dual[rows]
        # The inverse without the rows, its diagonal alone; that of the rows themselves is 0.
        diagonal = np.diag(self.inverse) - (carried * columns).sum(axis=1)
        diagonal[rows] = 1.0
        residuals = (self._dual - columns @ own) / np.maximum(diagonal, np.finfo(float).tiny)[:, None]
        residuals[rows] = own
        return residuals
