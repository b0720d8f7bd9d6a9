"""What a training did: recorded, cut into segments, stored."""

from __future__ import annotations

from ._fingerprint import match_rows, row_hashes
from ._recorder import TrajectoryRecorder
from ._segments import Segment, split_segments
from ._trajectory import Checkpoint, Stage, Trajectory

__all__ = [
    "Checkpoint",
    "Segment",
    "Stage",
    "Trajectory",
    "TrajectoryRecorder",
    "match_rows",
    "row_hashes",
    "split_segments",
]
