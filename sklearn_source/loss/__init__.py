"""What a row's loss, its Hessian and the measurement are."""

from __future__ import annotations

from ._measurement import Measurement, resolve_measurement
from ._output_hessian import curvature_of, kind_of, uniforms_shape_of
from ._row_loss import RowLoss
from ._targets import TargetError

__all__ = [
    "Measurement",
    "RowLoss",
    "TargetError",
    "curvature_of",
    "kind_of",
    "resolve_measurement",
    "uniforms_shape_of",
]
