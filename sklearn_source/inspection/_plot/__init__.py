"""Displays, drawn with matplotlib."""

from __future__ import annotations

from ._influence import InfluenceDisplay
from ._lds import LDSDisplay
from ._mislabel import MislabelDisplay
from ._segment import SegmentDisplay
from ._subset_removal import SubsetRemovalDisplay

__all__ = [
    "InfluenceDisplay",
    "LDSDisplay",
    "MislabelDisplay",
    "SegmentDisplay",
    "SubsetRemovalDisplay",
]
