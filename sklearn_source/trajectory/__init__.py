"""What a training did: recorded, cut into segments, stored."""

from __future__ import annotations

from ._flow import segment_flow, segment_rates
from ._recorder import TrajectoryRecorder
from ._segments import Segment, split_segments
from ._trajectory import Checkpoint, Stage, Trajectory
from ._verification import StageVerification, Verification, verify_stages

__all__ = [
    "Checkpoint",
    "Segment",
    "Stage",
    "StageVerification",
    "Trajectory",
    "TrajectoryRecorder",
    "Verification",
    "segment_flow",
    "segment_rates",
    "split_segments",
    "verify_stages",
]
