"""What a row's loss, its Hessian and the measurement are."""

from __future__ import annotations

from ._along_measurement import along_measurement
from ._batch_loss import needs_targets
from ._measurement import Measurement, require_derivative
from ._named_measurements import resolve_measurement
from ._penalty import find_penalty
from ._predictive import Bernoulli, Categorical, Gaussian, Laplace
from ._row_loss import RowLoss
from ._targets import TargetError

__all__ = [
    "Bernoulli",
    "Categorical",
    "Gaussian",
    "Laplace",
    "Measurement",
    "RowLoss",
    "TargetError",
    "along_measurement",
    "find_penalty",
    "needs_targets",
    "require_derivative",
    "resolve_measurement",
]
