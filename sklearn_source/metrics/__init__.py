"""Numbers about scores, against ground truth from retraining: NumPy arrays in, floats out."""

from __future__ import annotations

from ._datamodeling import linear_datamodeling_score
from ._leave_one_out import leave_one_out_correlation

__all__ = ["leave_one_out_correlation", "linear_datamodeling_score"]
