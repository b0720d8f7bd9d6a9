"""A trajectory cut at a checkpoint is that of a training that ended there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch import NeuralNetRegressor
from torch import nn

from sklearn_source import Trajectory, TrajectoryRecorder
from sklearn_source.trajectory import snapshots, until
from sklearn_source.utils._random import seeded


def trained(n_epochs, n_more=0, n_checkpoints=None):
    X = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
    net = NeuralNetRegressor(
        nn.Linear, module__in_features=2, module__out_features=1, lr=0.1, optimizer=torch.optim.SGD,
        optimizer__momentum=0.9, optimizer__weight_decay=0.1, max_epochs=n_epochs, batch_size=4, train_split=None,
        verbose=0, callbacks=[TrajectoryRecorder(n_checkpoints)],
    )  # fmt: skip
    with seeded(0):
        net.fit(X, X[:, :1])
        if n_more:
            net.set_params(max_epochs=n_more).partial_fit(X, X[:, :1])
    return Trajectory.from_net(net)


@pytest.mark.parametrize(("step", "n_epochs", "n_more"), [(3, 1, 0), (6, 2, 0), (9, 2, 1)])
def test_rates_and_checkpoints_are_those_of_a_shorter_training(step, n_epochs, n_more):
    whole = trained(2, 3)
    cut = until(whole, next(c for c in whole.checkpoints if c.step == step))
    alone = trained(n_epochs, n_more)
    assert [(s.start, s.end, s.index) for s in cut.stages] == [(s.start, s.end, s.index) for s in alone.stages]
    assert [c.digest for c in cut.checkpoints] == [c.digest for c in alone.checkpoints]
    for span in ((0, step), (1, step - 1)):
        assert cut.integrated_learning_rate(*span) == pytest.approx(alone.integrated_learning_rate(*span))
        assert cut.mean_weight_decay(*span) == pytest.approx(alone.mean_weight_decay(*span))
        assert cut.second_order(*span) == pytest.approx(alone.second_order(*span))
    assert cut.integrated_learning_rate(0, step)["weight"] < whole.integrated_learning_rate(0, step)["weight"]
    assert whole.n_steps == 15


def test_all_are_meant_where_no_number_is_given():
    whole = trained(5)
    uneven = Trajectory([c for c in whole.checkpoints if c.step in (0, 1, 2, 15)], whole.stages)
    assert [c.step for c in snapshots(uneven)] == [1, 2, 15]
