from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skorch import NeuralNetRegressor
from torch import nn

from sklearn_source.trajectory import Trajectory, TrajectoryRecorder
from sklearn_source.trajectory._checkpoint import Checkpoint
from sklearn_source.trajectory._stage_log import StageLog, thin


@settings(max_examples=200, deadline=None)
@given(n_steps=st.integers(1, 700), n_checkpoints=st.integers(1, 40), start=st.integers(0, 50))
def test_bounded_and_nearly_equally_spaced(n_steps, n_checkpoints, start):
    log = StageLog(0, start, 1, None)
    most = 0
    for _ in range(n_steps):
        log.n_steps += 1
        if log.is_due(n_checkpoints):
            log.hold(Checkpoint(log.end, 0, {}, {}, digest=""), n_checkpoints)
        most = max(most, len(log.held))
    log.tail = Checkpoint(log.end, 0, {}, {}, digest="")
    steps = [checkpoint.step for checkpoint in thin(log.recorded(), n_checkpoints, start)]
    assert most <= 2 * n_checkpoints
    assert len(steps) == len(set(steps)) == min(n_checkpoints, n_steps)
    assert steps == sorted(steps)
    assert steps[-1] == start + n_steps
    gaps = np.diff([start, *steps])
    assert gaps.min() >= 1
    assert gaps.max() <= 2 * n_steps / len(steps) + 1


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, x):
        return self.layer(x)


@settings(max_examples=15, deadline=None)
@given(
    stage_steps=st.lists(st.integers(0, 25), min_size=1, max_size=4),
    n_checkpoints=st.one_of(st.none(), st.integers(1, 8)),
)
def test_every_stage_is_thinned_on_its_own(stage_steps, n_checkpoints):
    X = np.ones((4, 1), dtype=np.float32)
    recorder = TrajectoryRecorder(n_checkpoints)
    net = NeuralNetRegressor(Line, lr=1e-3, batch_size=4, train_split=None, verbose=0, callbacks=[recorder])
    net.initialize()
    for epochs in stage_steps:
        net.partial_fit(X, 5 * X, epochs=epochs)
    expected = [epochs for epochs in stage_steps if epochs]
    if not expected:
        with pytest.raises(ValueError, match="saw no training step"):
            Trajectory.from_net(net)
        return
    trajectory = Trajectory.from_net(net)
    ends = np.cumsum(expected).tolist()
    assert [(stage.index, stage.end) for stage in trajectory.stages] == list(enumerate(ends))
    for stage, epochs in zip(trajectory.stages, expected):
        steps = [checkpoint.step for checkpoint in trajectory.stage_checkpoints(stage)]
        assert steps[0] == stage.start
        assert steps[-1] == stage.end
        assert len(steps) == 1 + (epochs if n_checkpoints is None else min(epochs, n_checkpoints))
    # The weights between two stages are held once.
    assert len(trajectory.checkpoints) == len({checkpoint.step for checkpoint in trajectory.checkpoints})


def test_held_while_training_is_bounded(make_net, data):
    from skorch.callbacks import Callback

    class Count(Callback):
        def on_batch_end(self, net, **kwargs):
            (log,) = recorder.stages_
            self.most_ = max(getattr(self, "most_", 0), len(log.held) + (log.tail is not None))

    recorder, count = TrajectoryRecorder(3), Count()
    net = make_net(recorder, [count], max_epochs=40).fit(*data)
    assert 3 <= count.most_ <= 7
    assert len(Trajectory.from_net(net).checkpoints) == 4
    assert len(recorder.stages_[0].held) == 3


def test_kept_are_the_weights_of_their_steps(make_net, data, spy_sgd):
    net = make_net(TrajectoryRecorder(4), optimizer=spy_sgd, max_epochs=17).fit(*data)
    trajectory = Trajectory.from_net(net)
    assert trajectory.n_steps == 68
    for checkpoint in trajectory.checkpoints[1:]:
        for value, expected in zip(checkpoint.parameters.values(), net.optimizer_.weights[checkpoint.step - 1]):
            assert torch.equal(value, expected)
