"""Where query vectors meet the training gradients: in the eigenbasis, or outside it."""

from __future__ import annotations

from ..gradients import Factored
from ._eigen import Basis


def meeting_place(curvature, encoded, probe, *, n_rows, n_checkpoints=1):
    """Per block and side of its matrix, decode the queries or bring the rows into the basis: what multiplies less.

    Parameters
    ----------
    curvature : EigenCurvature or GramCurvature
    encoded : list of tensor (n_query, groups, out, in)
        The queries' side in eigencoordinates.
    probe : list of Factored or Dense
        Gradients of any rows, for their numbers of positions.
    n_rows : int
        Rows that will be met.
    n_checkpoints : int
        Checkpoints whose gradients are summed for every row.

    Returns
    -------
    values : list of tensor (n_query, size)
    bases : list of Basis or None
        The basis into which the rows have to be brought, None for a side where the queries were decoded.
    """
    values, bases = [], []
    for basis, vectors, gradient in zip(curvature.bases, encoded, probe):
        n_query, groups, out, inp = vectors.shape
        times = n_checkpoints if isinstance(gradient, Factored) else 1

        def decoded(left, right):
            """One side, if its queries are cheaper to turn than the rows are."""
            width = inp if left is None else out
            queries = n_query * groups * out * inp * width
            return queries <= n_rows * times * gradient.token_rotation_cost(left, right)

        left = None if basis.left is None or not decoded(basis.left, None) else basis.left
        right = None if basis.right is None or not decoded(None, basis.right) else basis.right
        vectors = Basis(left, right).inverse().encode(vectors)
        kept = Basis(None if left is not None else basis.left, None if right is not None else basis.right)
        bases.append(None if kept.trivial else kept)
        values.append(vectors.reshape(n_query, -1))
    return values, bases
