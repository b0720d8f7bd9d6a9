"""The checkpoints of a training, each as the end of a training of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ._checkpoint import Checkpoint
from ._stage import HYPER_PARAMETERS
from ._trajectory import Trajectory

__all__ = ["snapshots", "until"]


def snapshots(trajectory: Trajectory, n_snapshots: int | None = None) -> list[Checkpoint]:
    """Checkpoints of the last stage, nearly equally spaced, its end among them.

    Parameters
    ----------
    trajectory : Trajectory
    n_snapshots : int, optional
        None: all after the stage's start.

    Returns
    -------
    checkpoints : list of Checkpoint

    Raises
    ------
    ValueError
        If fewer were recorded.
    """
    stage = trajectory.stages[-1]
    found = [c for c in trajectory.stage_checkpoints(stage.index) if c.step > stage.start]
    if n_snapshots is None:
        return found
    if n_snapshots > len(found):
        raise ValueError(
            f"expected at least {n_snapshots} checkpoints of the last training stage, it has {len(found)}: record "
            f"more, TrajectoryRecorder(n_checkpoints={n_snapshots}), or ask for {len(found)} snapshots"
        )
    places = stage.start + (stage.end - stage.start) * np.arange(1, n_snapshots + 1) / n_snapshots
    steps = np.array([c.step for c in found])
    return [found[i] for i in np.unique([np.abs(steps - place).argmin() for place in places])]


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
