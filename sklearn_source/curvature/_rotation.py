"""Inner products of queries in an eigenbasis with training rows that are not in it."""

from __future__ import annotations

from ..gradients.algebra import Meeting, weighted_sum
from ._eigen import Basis


def decode_queries_or_rotate_rows(curvature, encoded, probe, *, n_rows, n_checkpoints=1, tol=None):
    """Per block and side of its matrix, decode the queries or have the rows rotated: whichever multiplies less.

    With a tolerance, or decode the few outer products that a query is within it, where that is less still.

    Parameters
    ----------
    curvature : FittedCurvature
    encoded : list of tensor (n_query, groups, out, in)
        The queries' side in eigencoordinates.
    probe : list of RowGradient
        Gradients of any rows, for their numbers of positions.
    n_rows : int
        Rows that will be met.
    n_checkpoints : int
        Checkpoints whose gradients are summed for every row.
    tol : float or None
        Error that every query may have in a block, relative to its norm there, which no basis changes; None: none.

    Returns
    -------
    values : list of tensor (n_query, size) or LowRank
    bases : list of Basis or None
        The basis into which the rows have to be rotated, None on a side where the queries were decoded.
    """
    values, bases = [], []
    for basis, vectors, gradient in zip(curvature.bases, encoded, probe):
        n_query, groups, out, inp = vectors.shape
        size = n_query * groups * out * inp
        rows = n_rows * (n_checkpoints if gradient.has_factors else 1)
        sides = basis.left, basis.right
        decoding = [0 if q is None else size * len(q[0]) for q in sides]
        rotating = [rows * gradient.rotation_cost(basis.left, None), rows * gradient.rotation_cost(None, basis.right)]
        if tol is not None:
            met = weighted_sum([gradient] * n_checkpoints, [1.0] * n_checkpoints)
            components = Meeting(met, n_rows, tol).low_rank(
                vectors,
                extra=sum(map(min, decoding, rotating)),
                extra_per_component=sum(groups * len(q[0]) ** 2 for q in sides if q is not None),
            )
            if components is not None:
                back = basis.inverse()
                values.append(components.rotate(back.left, back.right))
                bases.append(None)
                continue
        left, right = (q is not None and d <= r for q, d, r in zip(sides, decoding, rotating))
        decoded = Basis(basis.left if left else None, basis.right if right else None)
        kept = Basis(None if left else basis.left, None if right else basis.right)
        vectors = decoded.inverse().encode(vectors)
        bases.append(None if kept.trivial else kept)
        values.append(vectors.reshape(n_query, -1))
    return values, bases
