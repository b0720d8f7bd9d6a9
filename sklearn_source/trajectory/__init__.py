"""What a training did: recorded, cut into segments, stored."""

from __future__ import annotations

from ._flow import coupled_decay, segment_flow, segment_rates
from ._from_net import recorder_in
from ._present_step import present_step
from ._record_verification import StageVerification, Verification, verify_stages
from ._recorder import TrajectoryRecorder
from ._restored import recorder_of, with_tensors
from ._segments import Segment, split_segments
from ._snapshots import snapshots, until
from ._trajectory import Checkpoint, Stage, Trajectory

__all__ = [
    "Checkpoint",
    "Segment",
    "Stage",
    "StageVerification",
    "Trajectory",
    "TrajectoryRecorder",
    "Verification",
    "coupled_decay",
    "present_step",
    "recorder_in",
    "recorder_of",
    "segment_flow",
    "segment_rates",
    "snapshots",
    "split_segments",
    "until",
    "verify_stages",
    "with_tensors",
]
