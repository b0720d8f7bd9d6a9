"""Displays: what scores and their measures look like. Drawn with matplotlib, which the ``plot`` extra brings."""

from __future__ import annotations

from ._datamodeling import LDSDisplay
from ._influence import InfluenceDisplay
from ._mislabel import MislabelDisplay
from ._segment import SegmentDisplay
from ._segment_scores import segment_scores
from ._subset_removal import SubsetRemovalDisplay

__all__ = [
    "InfluenceDisplay",
    "LDSDisplay",
    "MislabelDisplay",
    "SegmentDisplay",
    "SubsetRemovalDisplay",
    "segment_scores",
]
