"""From a trained net to its trajectory."""

from __future__ import annotations

from sklearn.exceptions import NotFittedError
from skorch import NeuralNet

from ..utils._digest import tensor_digest
from ..utils._warnings import warn
from ._checkpoint import snapshot, with_buffers_of
from ._recorder import TrajectoryRecorder
from ._stage_log import locate, thin

__all__ = ["record_from_net", "recorder_in"]


def record_from_net(net):
    """Checkpoints, stages and observations that the recorder of `net` saw, up to the weights that the net has now."""
    if not isinstance(net, NeuralNet):
        raise TypeError(f"expected a skorch NeuralNet, got {type(net).__name__}")
    if not getattr(net, "initialized_", False):
        raise NotFittedError(f"This {type(net).__name__} is not fitted yet: call fit first, with a TrajectoryRecorder")
    recorder = recorder_in(net)
    if recorder is None:
        raise ValueError(
            "expected a net trained with a TrajectoryRecorder, but this one has none. Add "
            "callbacks=[TrajectoryRecorder()] to the net and fit it again, or describe its training by "
            "Trajectory.from_checkpoints"
        )
    logs = [log for log in getattr(recorder, "stages_", []) if log.n_steps]
    if not logs:
        raise ValueError(
            "The TrajectoryRecorder of this net saw no training step. Call net.fit with it among the callbacks "
            "(max_epochs "
            "at least 1, weights not merely loaded)"
        )
    unseen = len(net.history) - getattr(recorder, "n_epochs_", len(net.history))
    if unseen > 0:
        warn(
            f"the net's history has {len(net.history)} epochs, of which its TrajectoryRecorder saw the last "
            f"{len(net.history) - unseen}: the training was resumed from files (LoadInitState, load_params), and what "
            "rows did before is in no score. Train from the start with a recorder, or record both parts and describe "
            "them by Trajectory.from_checkpoints"
        )
    digest = tensor_digest(dict(net.module_.named_parameters()))
    end = locate(logs, digest)
    if end is None:
        raise ValueError(
            f"expected the net to have weights that its TrajectoryRecorder saw (after step {logs[-1].end}, or at an "
            "earlier epoch's end), but it has others: they were changed after training (loaded or edited, trained "
            "without the "
            "recorder, or the recorder was shared with another net), or an exception ended the training within an "
            "epoch. "
            "Fit again with a TrajectoryRecorder of its own, or describe the training by Trajectory.from_checkpoints"
        )
    checkpoints, stages, observations = [], [], []
    for log in logs:
        if log.start >= end:
            break
        stop = min(log.end, end)
        recorded = log.recorded(stop)
        if not recorded or recorded[-1].step < stop:
            # A callback restored the weights of an epoch's end that is no checkpoint: the net itself has them. The
            # optimizer went on, so its state is not theirs.
            recorded.append(snapshot(net.module_, stop, log.index))
        checkpoints += [log.initial] if log.initial else []
        checkpoints += thin(recorded, log.n_checkpoints, log.start)
        stages.append(log.to_stage(stop))
        observations += [observation for observation in log.observations if observation.step <= stop]
    checkpoints[-1] = with_buffers_of(checkpoints[-1], net.module_)
    return checkpoints, stages, observations


def recorder_in(net):
    """The first TrajectoryRecorder among the callbacks of an initialized net, None where there is none."""
    callbacks = getattr(net, "callbacks_", None) or []
    return next((callback for _, callback in callbacks if isinstance(callback, TrajectoryRecorder)), None)
