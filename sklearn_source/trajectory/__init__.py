"""What a training did: recorded, cut into segments, stored."""

from __future__ import annotations

from ._fingerprint import row_hashes
from ._flow import Flow, segment_flow, segment_rates
from ._preconditioner import FAMILIES
from ._recorder import TrajectoryRecorder
from ._segments import Segment, split_segments
from ._trajectory import Checkpoint, Stage, Trajectory

__all__ = [
    "FAMILIES",
    "Checkpoint",
    "Flow",
    "Segment",
    "Stage",
    "Trajectory",
    "TrajectoryRecorder",
    "row_hashes",
    "segment_flow",
    "segment_rates",
    "split_segments",
]
