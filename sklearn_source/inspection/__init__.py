"""Scores for people: displays, groups of rows, suspicious rows, thinly covered regions.

The displays are drawn with matplotlib, which the ``plot`` extra brings.
"""

from __future__ import annotations

from ._action_effect import ActionEffect
from ._audit import audit_training_rows
from ._behaviour_group import BehaviourGroup, BehaviourGroups
from ._behaviour_groups import behaviour_groups
from ._group_influence import group_influence
from ._plot._group_effect_display import GroupEffectDisplay
from ._plot._influence_display import InfluenceDisplay
from ._plot._lds_display import LDSDisplay
from ._plot._mislabel_display import MislabelDisplay
from ._plot._segment_display import SegmentDisplay
from ._plot._subset_removal_display import SubsetRemovalDisplay
from ._predict_action import predict_action
from ._report._attribution_report import attribution_report
from ._report._report import AttributionReport
from ._segment_scores import segment_scores
from ._under_sampled_regions import under_sampled_regions

__all__ = [
    "ActionEffect",
    "AttributionReport",
    "BehaviourGroup",
    "BehaviourGroups",
    "GroupEffectDisplay",
    "InfluenceDisplay",
    "LDSDisplay",
    "MislabelDisplay",
    "SegmentDisplay",
    "SubsetRemovalDisplay",
    "attribution_report",
    "audit_training_rows",
    "behaviour_groups",
    "group_influence",
    "predict_action",
    "segment_scores",
    "under_sampled_regions",
]
