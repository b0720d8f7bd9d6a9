"""A record that goes on elsewhere: its tensors exchanged, and the recorder that has it."""

from __future__ import annotations

from array import array

import numpy as np
from sklearn.base import clone

from ._checkpoint import Checkpoint
from ._observation import Observation
from ._stage import HYPER_PARAMETERS
from ._stage_log import StageLog, block_of
from ._trajectory import Trajectory

__all__ = ["recorder_of", "with_tensors"]


def with_tensors(trajectory, tensor=lambda name, value: value, batch=lambda rows: rows):
    """The same training with other tensors, all in memory.

    Parameters
    ----------
    trajectory : Trajectory
    tensor : callable, optional
        ``tensor(name, value)`` gives what takes the place of a parameter or buffer, or of what was recorded of it (its
        gradient, the optimizer's state), by its name. By default nothing is exchanged.
    batch : callable, optional
        The same of the batches of observed steps.

    Returns
    -------
    trajectory : Trajectory
    """
    points = []
    for point in trajectory.checkpoints:
        state = point.optimizer_state
        if state is not None:
            state = {name: _exchanged_state(name, kept, tensor) for name, kept in state.items()}
        parts = (_exchanged(part, tensor) for part in (point.parameters, point.buffers))
        points.append(Checkpoint(point.step, point.stage, *parts, state, point.outside))
    seen = []
    for kept in trajectory.observations:
        whole = kept.load()
        parts = (_exchanged(part, tensor) for part in (whole.parameters, whole.buffers, whole.gradients))
        batches = [(batch(rows), states) for rows, states in whole.batches]
        seen.append(Observation(whole.step, whole.stage, *parts, batches, whole.outside))
    return Trajectory(points, trajectory.stages, seen)


def _exchanged(named, tensor):
    return {name: tensor(name, value) for name, value in named.items()}


def _exchanged_state(name, kept, tensor):
    return {key: tensor(name, value) if hasattr(value, "shape") else value for key, value in kept.items()}


def recorder_of(trajectory, recorder, n_epochs):
    """A recorder like another that has recorded a training from its start.

    Parameters
    ----------
    trajectory : Trajectory
    recorder : TrajectoryRecorder
        Its parameters are taken.
    n_epochs : int
        That the training had.

    Returns
    -------
    recorder : TrajectoryRecorder
        ``Trajectory.from_net`` of a net that has it, at the last weights, gives the trajectory back.
    """
    restored = clone(recorder).initialize()
    restored.n_epochs_ = n_epochs
    restored.stages_ = [_log_of(stage, trajectory, recorder.n_checkpoints) for stage in trajectory.stages]
    return restored


def _log_of(stage, trajectory, n_checkpoints):
    log = StageLog(stage.index, stage.start, stage.n_rows, stage.row_hashes, n_checkpoints, stage.exact_hashes)
    table = np.stack([stage.hyper[name] for name in HYPER_PARAMETERS], axis=-1)
    log.n_steps, log.rows, log.optimizer = stage.n_steps, stage.rows, stage.optimizer
    log.blocks = [block_of(list(stage.groups), table)]
    log.batches = array("I", [1] * stage.n_steps if stage.batches is None else [int(n) for n in stage.batches])
    log.drawn, log.edits = dict(stage.draws or {}), list(stage.edits)
    log.observations = [kept for kept in trajectory.observations if kept.stage == stage.index]
    log.held = [point for point in trajectory.checkpoints if point.stage == stage.index]
    log.initial = log.held.pop(0) if log.held[0].step == stage.start else None
    log.epoch_ends = [(log.end, log.held[-1].digest)]
    log.begun, log.continues, log.closed = True, stage.continues, True
    return log
