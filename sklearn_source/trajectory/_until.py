"""A training as it would have been, had it ended at one of its checkpoints."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ._checkpoint import Checkpoint
from ._stage import HYPER_PARAMETERS
from ._trajectory import Trajectory

__all__ = ["until"]


def until(trajectory: Trajectory, checkpoint: Checkpoint) -> Trajectory:
    """The trajectory up to a checkpoint: what the last velocity went on to move afterwards is no part of it.

    Parameters
    ----------
    trajectory : Trajectory
    checkpoint : Checkpoint
        One of its own, after the first step of its stage.

    Returns
    -------
    trajectory : Trajectory
        Without observations: what they showed is taken into account already.
    """
    stages = [replace(stage, velocity_worth=None) for stage in trajectory.stages if stage.start < checkpoint.step]
    stages[-1] = _cut(stages[-1], checkpoint.step)
    return Trajectory([c for c in trajectory.checkpoints if c.step <= checkpoint.step], stages)


def _cut(stage: Any, end: int) -> Any:
    n_steps = end - stage.start
    return replace(
        stage,
        end=end,
        hyper={name: stage.hyper[name][:n_steps] for name in HYPER_PARAMETERS},
        batches=None if stage.batches is None else stage.batches[:n_steps],
        draws={step: drawn for step, drawn in (stage.draws or {}).items() if step <= end} or None,
        edits=tuple(edit for edit in stage.edits if edit[0] <= end),
    )
