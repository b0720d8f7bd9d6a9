"""Displays, drawn with matplotlib."""

from __future__ import annotations

from ._group_effect_display import GroupEffectDisplay
from ._influence_display import InfluenceDisplay
from ._lds_display import LDSDisplay
from ._mislabel_display import MislabelDisplay
from ._segment_display import SegmentDisplay
from ._subset_removal_display import SubsetRemovalDisplay

__all__ = [
    "GroupEffectDisplay",
    "InfluenceDisplay",
    "LDSDisplay",
    "MislabelDisplay",
    "SegmentDisplay",
    "SubsetRemovalDisplay",
]
