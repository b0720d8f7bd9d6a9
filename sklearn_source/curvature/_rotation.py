"""Inner products of queries in an eigenbasis with training rows that are not in it."""

from __future__ import annotations

from ._eigen import Basis


def decode_queries_or_rotate_rows(curvature, encoded, probe, *, n_rows, n_checkpoints=1):
    """Per block and side of its matrix, decode the queries or have the rows rotated: whichever multiplies less.

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

    Returns
    -------
    values : list of tensor (n_query, size)
    bases : list of Basis or None
        The basis into which the rows have to be rotated, None on a side where the queries were decoded.
    """
    values, bases = [], []
    for basis, vectors, gradient in zip(curvature.bases, encoded, probe):
        n_query, groups, out, inp = vectors.shape
        size = n_query * groups * out * inp
        rows = n_rows * (n_checkpoints if gradient.has_factors else 1)
        left = size * out <= rows * gradient.rotation_cost(basis.left, None)
        right = size * inp <= rows * gradient.rotation_cost(None, basis.right)
        decoded = Basis(basis.left if left else None, basis.right if right else None)
        kept = Basis(None if left else basis.left, None if right else basis.right)
        vectors = decoded.inverse().encode(vectors)
        bases.append(None if kept.trivial else kept)
        values.append(vectors.reshape(n_query, -1))
    return values, bases
