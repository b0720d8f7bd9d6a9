"""Fitting a curvature, and coupling its blocks where it asks for that."""

from __future__ import annotations

from ._base import Curvature
from ._coupled import CoupledCurvature
from ._fisher import FisherStream
from ._fisher_sample import FisherSample, columns_that_fit
from ._fitted_curvature import FittedCurvature
from ._joint_rows import JointRows

# Fisher columns that blocks are coupled by for max_rows="auto".
_COLUMNS = {"layers": 1024, "krylov": 4096}
# What these may take. No share of the memory budget: scores would depend on it by more than rounding.
_BYTES = 512 * 2**20


def fit_curvature(curvature: Curvature, stream: FisherStream) -> FittedCurvature:
    """``curvature.fit(stream)``, its blocks coupled as ``curvature.coupling`` says.

    Parameters
    ----------
    curvature : Curvature
    stream : FisherStream

    Returns
    -------
    fitted : FittedCurvature

    Raises
    ------
    TypeError
        Where ``fit`` gives something else.
    """
    fitted = curvature.fit(stream)
    if not isinstance(fitted, FittedCurvature):
        raise TypeError(
            f"expected {type(curvature).__name__}.fit to return a FittedCurvature, got a {type(fitted).__name__}: "
            "return an EigenCurvature, or subclass FittedCurvature"
        )
    if curvature.coupling is None or fitted.couples_blocks:
        return fitted
    if curvature.coupling == "layers" and len(stream.blocks) == 1:  # nothing to couple; "krylov" mends a block too
        return fitted
    if curvature.max_rows is None:
        rows = JointRows(fitted.bases, stream.penalties, stream=stream)
    else:
        size = curvature.max_rows
        if size == "auto":
            size = columns_that_fit(stream, _COLUMNS[curvature.coupling], _BYTES)
        kept = [batch for batch, _ in FisherSample(stream, size).batches()]
        if not kept:  # no column has a gradient: there is nothing to couple by
            return fitted
        rows = JointRows(fitted.bases, stream.penalties, kept=kept)
    n_iter = curvature.n_iter if curvature.coupling == "krylov" else 0
    return CoupledCurvature(fitted, rows, n_iter)
