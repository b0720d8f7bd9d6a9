"""Where query vectors meet the training gradients: in the eigenbasis, or outside it."""

from __future__ import annotations

from ..gradients import Dense


def meeting_place(curvature, encoded, probe, *, n_rows, n_checkpoints=1):
    """Per block, decode the queries or bring the rows into the basis, whichever multiplies less.

    Parameters
    ----------
    curvature : EigenCurvature or GramCurvature
    encoded : list of tensor (n_query, groups, out, in)
        The queries' side in eigencoordinates.
    probe : list of Factored, Indexed or Dense
        Gradients of any rows, for their numbers of positions.
    n_rows : int
        Rows that will be met.
    n_checkpoints : int
        Checkpoints whose gradients are summed for every row.

    Returns
    -------
    values : list of tensor (n_query, size)
    bases : list of Basis or None
        The basis into which the rows have to be brought; None where the queries were decoded.
    """
    values, bases = [], []
    for basis, vectors, gradient in zip(curvature.bases, encoded, probe):
        n_query, groups, out, inp = vectors.shape
        if basis.trivial:
            bases.append(None)
        else:
            queries = n_query * groups * out * inp * (out * (basis.left is not None) + inp * (basis.right is not None))
            times = 1 if isinstance(gradient, Dense) else n_checkpoints
            rows = n_rows * times * gradient.token_rotation_cost(basis.left, basis.right)
            if queries <= rows:
                vectors = basis.inverse().encode(vectors)
                bases.append(None)
            else:
                bases.append(basis)
        values.append(vectors.reshape(n_query, -1))
    return values, bases
