"""Eigenvalues measured in given bases: the mean squared coordinates of the gradients."""

from __future__ import annotations

from ..gradients.algebra import rotate_matrices, squared_in_basis
from ._fisher import require_finite
from ._shared_passes import summed_by_blocks


def corrected_eigenvalues(stream, bases, known=None):
    """``sum_c w_c mean_n [Q_S^T G_n Q_A]^2`` per block: (groups, out, in) in float64.

    Those ``known``, of a list with None for the others, are not measured.
    """
    totals = [0.0 if own is None else own for own in known or [None] * len(bases)]
    unknown = [i for i, own in enumerate(known or bases) if known is None or own is None]
    for c, weight in enumerate(stream.weights):
        here = summed_by_blocks(_sums_of_squares, stream, c, bases, unknown)
        for i, value in zip(unknown, here):
            require_finite(value, "the curvature", stream.blocks[i], stream.checkpoints[c])
            totals[i] = totals[i] + value * (float(weight) / stream.n_rows)
    for i in unknown:
        basis, penalty = bases[i], stream.penalties[i]
        if penalty is not None:
            squares = [None if q is None else q.double().square() for q in (basis.left, basis.right)]
            totals[i] = totals[i] + rotate_matrices(penalty[None], *squares)[0]
    return totals


def _sums_of_squares(stream, c, bases, blocks):
    """Over the rows at a checkpoint, of the blocks of these numbers."""
    sums = [0.0] * len(blocks)
    for batch in stream.columns(c):
        for place, i in enumerate(blocks):
            squares = squared_in_basis(batch[i], bases[i].left, bases[i].right)
            sums[place] = sums[place] + squares.double()
    return sums
