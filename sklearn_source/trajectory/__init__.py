"""What a training did: recorded, cut into segments, stored."""

from __future__ import annotations

from ._flow import Flow, segment_flow, segment_rates
from ._preconditioner import FAMILIES
from ._recorder import TrajectoryRecorder
from ._segments import Segment, split_segments
from ._trajectory import Checkpoint, Stage, Trajectory

__all__ = [
    "Checkpoint",
    "FAMILIES",
    "Flow",
    "Segment",
    "Stage",
    "Trajectory",
    "TrajectoryRecorder",
    "segment_flow",
    "segment_rates",
    "split_segments",
]
