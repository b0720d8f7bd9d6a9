"""Scores for people: displays, groups of rows, suspicious rows, thinly covered regions.

The displays are drawn with matplotlib, which the ``plot`` extra brings.
"""

from __future__ import annotations

from ._audit import audit_training_rows
from ._datamodeling import LDSDisplay
from ._groups import group_influence
from ._influence import InfluenceDisplay
from ._mislabel import MislabelDisplay
from ._regions import under_sampled_regions
from ._segment import SegmentDisplay
from ._segment_scores import segment_scores
from ._subset_removal import SubsetRemovalDisplay

__all__ = [
    "InfluenceDisplay",
    "LDSDisplay",
    "MislabelDisplay",
    "SegmentDisplay",
    "SubsetRemovalDisplay",
    "audit_training_rows",
    "group_influence",
    "segment_scores",
    "under_sampled_regions",
]
