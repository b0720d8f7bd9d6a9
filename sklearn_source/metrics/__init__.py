"""Numbers about scores, against ground truth from retraining: NumPy arrays in, floats out."""

from __future__ import annotations

from ._class_detection import class_detection_score
from ._datamodeling import linear_datamodeling_difference, linear_datamodeling_score
from ._first_order import first_order_change
from ._generally_influential import generally_influential_share
from ._group_effects import group_effect_score
from ._intervals import mean_interval, student_interval
from ._leave_one_out import leave_one_out_correlation
from ._mislabel import mislabel_detection_score, mislabelled_mask
from ._overlap import top_k_overlap
from ._randomization import model_randomization_score
from ._removal import subset_removal_score, top_k_removals
from ._score_validation import check_scores, check_truth

__all__ = [
    "check_scores",
    "check_truth",
    "class_detection_score",
    "first_order_change",
    "generally_influential_share",
    "group_effect_score",
    "leave_one_out_correlation",
    "linear_datamodeling_difference",
    "linear_datamodeling_score",
    "mean_interval",
    "mislabel_detection_score",
    "mislabelled_mask",
    "model_randomization_score",
    "student_interval",
    "subset_removal_score",
    "top_k_overlap",
    "top_k_removals",
]
