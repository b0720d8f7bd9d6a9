"""Losses, modules and nets that keep something from step to step, against a loop written by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch import NeuralNet, NeuralNetRegressor
from skorch.callbacks import Callback
from torch import nn

from sklearn_source.modules import MLP
from sklearn_source.retraining import leave_one_out, retrain_on_subsets
from sklearn_source.retraining._engines import JoblibEngine
from sklearn_source.retraining._training_state import CODE
from tests.retraining._problems import N_FEATURES, make_net, rows, task_of

OPTIONS = {"n_subsets": 2, "n_repeats": 2, "random_state": 3}


class WarmUp(nn.MSELoss):
    """Counts its steps."""

    def __init__(self):
        super().__init__()
        self.n_steps = 0

    def forward(self, input, target):
        self.n_steps += self.training
        return super().forward(input, target) * min(1.0, self.n_steps / 9)


class RunningScale(nn.MSELoss):
    """Divides by a running mean of the errors."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.ones(()))

    def forward(self, input, target):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * (input - target).abs().mean().detach()
        return super().forward(input, target) / self.mean


class Plain:
    """No torch module: its counter is in an object of its own."""

    class Counter:
        n = 0

    def __init__(self):
        self.counter, self.seen = Plain.Counter(), [0.0]

    def __call__(self, input, target):
        self.counter.n += 1
        self.seen.append(self.counter.n)
        return (input - target).square().mean() * min(1.0, self.seen[-1] / 9)


class Counting(nn.Module):
    """Its output shrinks with every batch that it was trained on, in evaluation too."""

    def __init__(self):
        super().__init__()
        self.linear, self.n_seen = nn.Linear(N_FEATURES, 1), 0

    def forward(self, X):
        self.n_seen += self.training
        return self.linear(X) / (1 + 0.05 * self.n_seen)


class RandomFeatures(nn.Module):
    """Draws what is neither parameter nor buffer."""

    def __init__(self):
        super().__init__()
        self.directions, self.linear = torch.randn(N_FEATURES, 6), nn.Linear(6, 1)

    def forward(self, X):
        return self.linear(torch.cos(X @ self.directions))


class Remembering(NeuralNetRegressor):
    """A coefficient of the net itself."""

    def get_loss(self, y_pred, y_true, X=None, training=False):
        loss = super().get_loss(y_pred, y_true, X=X, training=training)
        if training:
            self.weight_ = 0.8 * getattr(self, "weight_", 1.0)
            loss = loss * (1 - self.weight_)
        return loss


class ByEpoch(NeuralNetRegressor):
    """skorch's history decides."""

    def get_loss(self, y_pred, y_true, X=None, training=False):
        loss = super().get_loss(y_pred, y_true, X=X, training=training)
        batch = len(self.history[-1, "batches"])
        return loss * min(1.0, self.history[-1, "epoch"] / 3) * (1 + 0.1 * batch)


STATEFUL = {
    "counter in the criterion": (lambda: make_net(criterion=WarmUp), "criterion_.n_steps changes"),
    "buffer of the criterion": (lambda: make_net(criterion=RunningScale), "criterion_.mean changes"),
    "criterion that is no module": (lambda: make_net(criterion=Plain), "net.criterion_ changes"),
    "counter in the module": (lambda: make_net(module=Counting), "module_.n_seen changes"),
    "random attribute": (lambda: make_net(module=RandomFeatures), "module_.directions differs between"),
    "attribute of the net": (lambda: make_net(Remembering), "net.weight_ changes"),
    "history": (lambda: make_net(ByEpoch), None),
}


def by_hand(net, X, y, X_query, own, seed):
    """Predictions of a network trained by a plain loop on the batches of a retraining."""
    torch.manual_seed(seed)
    net = clone(net).initialize()
    optimizer = torch.optim.SGD(net.module_.parameters(), net.lr)
    for epoch in range(net.max_epochs):
        order = np.random.default_rng([seed, epoch]).permutation(own)
        net.history.new_epoch()
        net.history.record("epoch", epoch + 1)
        net._set_training(True)
        for batch in np.split(order, range(net.batch_size, len(order), net.batch_size)):
            net.history.new_batch()
            optimizer.zero_grad()
            output = net.infer(torch.from_numpy(X[batch]))
            net.get_loss(output, torch.from_numpy(y[batch]), training=True).backward()
            optimizer.step()
    net._set_training(False)
    return net.infer(torch.from_numpy(X_query)).detach().numpy()[:, 0]


@pytest.mark.parametrize("name", STATEFUL)
def test_every_engine_is_right_or_says_no(name):
    make, reason = STATEFUL[name]
    X, y, X_query = rows()
    found = retrain_on_subsets(make(), X, y, X_query, **OPTIONS)
    expected = [
        [by_hand(make(), X, y, X_query, np.flatnonzero(mask), int(seed)) for seed in seeds]
        for mask, seeds in zip(found.masks, found.seeds)
    ]
    np.testing.assert_allclose(found.outputs, expected, atol=1e-5)
    one_by_one = retrain_on_subsets(make(), X, y, X_query, engine="joblib", **OPTIONS)
    np.testing.assert_allclose(one_by_one.outputs, expected, atol=1e-5)
    if reason is None:
        assert found.settings["engine"] == "vectorized"
        return
    assert found.settings["engine"] == "joblib"
    assert found.settings["engine_reason"].startswith(reason)
    with pytest.raises(ValueError, match=reason):
        retrain_on_subsets(make(), X, y, X_query, engine="vectorized", **OPTIONS)


@pytest.mark.parametrize("criterion", [WarmUp, RunningScale])
def test_the_loss_is_measured_in_the_state_that_training_left(criterion):
    X, y, X_query = rows()
    net = make_net(criterion=criterion, module__n_features=N_FEATURES, iterator_train__shuffle=False, lr=0.02)
    truth = leave_one_out(net, X, y, X[:3], y[:3], rows=[0], measurement="neg_loss", random_state=0)
    torch.manual_seed(int(truth.seeds[0, 0]))
    net.fit(X, y)
    net.criterion_.eval()
    with torch.no_grad():
        losses = [
            float(net.criterion_(net.infer(torch.from_numpy(X[[i]])), torch.from_numpy(y[[i]]))) for i in range(3)
        ]
    np.testing.assert_allclose(truth.outputs[0, 0], [-loss for loss in losses], rtol=1e-4)


N_STEPS = [0]


class Global(nn.MSELoss):
    def forward(self, input, target):
        N_STEPS[0] += 1
        return super().forward(input, target) * min(1.0, N_STEPS[0] / 9)


def test_state_outside_of_the_network_is_named():
    X, y, X_query = rows()
    with pytest.warns(UserWarning, match="a variable outside of the network that its code names changed while"):
        found = retrain_on_subsets(make_net(criterion=Global), X, y, X_query, **OPTIONS)
    assert found.settings["engine_reason"].startswith("a variable outside of the network that its code names changes")


class Leaving(nn.Module):
    """Leaves what it computed behind, for people to look at."""

    def __init__(self):
        super().__init__()
        self.mlp = MLP(hidden=(5,), n_features=N_FEATURES)

    def forward(self, X):
        self.last_output = self.mlp(X)
        return self.last_output


def test_what_a_forward_pass_leaves_behind_is_no_state():
    X, y, X_query = rows()
    found = retrain_on_subsets(make_net(module=Leaving), X, y, X_query, **OPTIONS)
    assert found.settings["engine"] == "vectorized", found.settings["engine_reason"]


class Autoencoder(NeuralNet):
    def get_loss(self, y_pred, y_true, X=None, training=False):
        return super().get_loss(y_pred, X.to(y_pred), X=X, training=training)


def test_networks_without_targets():
    X, _, X_query = rows()
    net = make_net(
        Autoencoder,
        criterion=nn.MSELoss,
        module__n_features=N_FEATURES,
        module__n_outputs=N_FEATURES,
        iterator_train__shuffle=False,
    )
    found = leave_one_out(net, X, None, X_query, rows=[0, 7], output=2, random_state=0)
    assert found.settings["engine_reason"] == "the rows have no targets"
    torch.manual_seed(int(found.seeds[0, 0]))
    np.testing.assert_allclose(found.outputs[0, 0], net.fit(X, None).predict(X_query)[:, 2], atol=1e-5)
    assert np.abs(found.effects()).max() > 1e-4


class Annealing(Callback):
    def on_epoch_begin(self, net, **kwargs):
        net.history.record("temperature", 1 / len(net.history))


class Annealed(NeuralNetRegressor):
    def get_loss(self, y_pred, y_true, X=None, training=False):
        return super().get_loss(y_pred, y_true, X=X, training=training) * self.history[-1, "temperature"]


def test_a_loss_that_a_callback_anneals_by_the_history():
    X, y, X_query = rows()
    net = make_net(Annealed, callbacks=[Annealing()], module__n_features=N_FEATURES, iterator_train__shuffle=False)
    truth = leave_one_out(net, X, y, X_query, rows=[0], random_state=0)
    torch.manual_seed(int(truth.seeds[0, 0]))
    np.testing.assert_allclose(truth.outputs[0, 0], net.fit(X, y).predict(X_query)[:, 0], atol=1e-5)
    with pytest.raises(ValueError, match="temperature"):
        leave_one_out(net, X, y, X[:2], y[:2], rows=[0], measurement="neg_loss")


@pytest.mark.parametrize("is_changing", [False, True])
def test_code_that_came_from_another_process_is_compared_with_itself(is_changing):
    X, y, X_query = rows()
    net = make_net(criterion=Global if is_changing else nn.MSELoss)
    task, units = task_of(net, X, y, X_query, n_subsets=1, n_repeats=1)
    expected = JoblibEngine(task)(units)
    # A class of a script is described otherwise in the workers, where it arrives by value.
    task.reader.state[CODE] = "as the caller describes it"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = JoblibEngine(task)(units)
    assert [CODE in str(warning.message) for warning in said] == [True] * is_changing
    if not is_changing:
        np.testing.assert_array_equal(found, expected)
