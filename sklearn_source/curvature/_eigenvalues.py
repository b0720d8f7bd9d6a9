"""Eigenvalues measured in given bases: the mean squared coordinates of the gradients."""

from __future__ import annotations

from ..gradients.algebra import rotate_matrices, squared_in_basis
from ._fisher import require_finite
from ._shared_passes import summed_by_blocks


def corrected_eigenvalues(stream, bases):
    """``sum_c w_c mean_n [Q_S^T G_n Q_A]^2`` per block: (groups, out, in) in float64."""
    totals = [0.0] * len(bases)
    for c, weight in enumerate(stream.weights):
        here = summed_by_blocks(_sums_of_squares, stream, c, bases)
        for i, (block, value) in enumerate(zip(stream.blocks, here)):
            require_finite(value, "the curvature", block, stream.checkpoints[c])
            totals[i] = totals[i] + value * (float(weight) / stream.n_rows)
    for i, (basis, penalty) in enumerate(zip(bases, stream.penalties)):
        if penalty is not None:
            squares = [None if q is None else q.double().square() for q in (basis.left, basis.right)]
            totals[i] = totals[i] + rotate_matrices(penalty[None], *squares)[0]
    return totals


def _sums_of_squares(stream, c, bases):
    """Over the rows at a checkpoint."""
    sums = [0.0] * len(bases)
    for batch in stream.columns(c):
        for i, (basis, columns) in enumerate(zip(bases, batch)):
            sums[i] = sums[i] + squared_in_basis(columns, basis.left, basis.right).double()
    return sums
