"""Nets with another module: the same weights in a changed network, or a module trained in its place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch import NeuralNetRegressor
from torch import nn

from sklearn_source import Trajectory, TrajectoryRecorder
from sklearn_source.modules import MLP
from sklearn_source.network import Network, net_with_changed_module, train_module
from tests._nets import make_net


@pytest.fixture(scope="module")
def trained():
    X = np.random.RandomState(0).normal(size=(20, 3)).astype(np.float32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make_net().fit(X, X[:, :1]), X, X[:, :1]


def without_activations(module):
    for name, layer in module.named_modules():
        if isinstance(layer, nn.ReLU):
            parent, _, own = name.rpartition(".")
            setattr(module.get_submodule(parent), own, nn.Identity())


def test_a_changed_module_has_the_very_weights_and_their_record(trained):
    net, X, _ = trained
    calls = []
    hook = net.module_.register_forward_hook(lambda *args: calls.append(1))
    changed = net_with_changed_module(net, without_activations)
    hook.remove()
    assert any(isinstance(layer, nn.ReLU) for layer in net.module_.modules())
    assert not any(isinstance(layer, nn.ReLU) for layer in changed.module_.modules())
    own = dict(net.module_.named_parameters())
    assert all(value is own[name] for name, value in changed.module_.named_parameters())
    assert Trajectory.from_net(changed).n_steps == Trajectory.from_net(net).n_steps
    with pytest.warns(UserWarning, match="forward hooks on MLP are left out"):
        Network.from_net(changed).forward(torch.as_tensor(X))
    assert not calls


def test_a_module_is_trained_in_the_place_of_the_nets_own(trained):
    net, X, y = trained
    before = torch.get_rng_state()
    made = []

    def make():
        made.append(nn.Linear(3, 1))
        return made[-1]

    given = {"seed": 3, "n_steps": 4, "recorder": TrajectoryRecorder()}
    other, _, targets = train_module(net, make, X.astype(np.float64), y[:, 0], **given)
    assert torch.equal(torch.get_rng_state(), before)
    assert other.module_ is made[0]
    assert Trajectory.from_net(other).n_steps == 4  # three batches an epoch
    assert targets.shape == (20, 1)
    assert other.optimizer_.param_groups[0]["lr"] == net.lr
    again, _, _ = train_module(net, make, X, y, **{**given, "recorder": TrajectoryRecorder()})
    assert torch.equal(again.module_.weight, other.module_.weight)


class OwnWay(NeuralNetRegressor):
    def initialize_module(self):
        self.module_ = MLP(n_features=3, hidden=(6,))
        return self


def test_a_net_that_makes_its_module_in_its_own_way_is_refused(trained):
    _, X, y = trained
    net = make_net(OwnWay).fit(X, y)
    with pytest.raises(ValueError, match="a OwnWay that makes it in a way of its own"):
        train_module(net, lambda: nn.Linear(3, 1), X, y, seed=0, n_steps=2, recorder=TrajectoryRecorder())
