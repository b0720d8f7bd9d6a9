"""A number that was changed by hand after the recorded training is said; what changes nothing, or by itself, is not."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch
from skorch import NeuralNetRegressor
from torch import nn

from sklearn_source import InfluenceFunctions, TracIn, Trajectory, TrajectoryRecorder
from sklearn_source.utils._random import seeded

X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
y = (X[:, :1] - X[:, 1:2] ** 2).astype(np.float32)


class Scaled(nn.Module):
    def __init__(self, p=0.3):
        super().__init__()
        self.first, self.dropout, self.last = nn.Linear(3, 4), nn.Dropout(p), nn.Linear(4, 1)
        self.scale, self.n_calls, self.n_trained, self.name, self.warmth = 1.0, 0, 0, "a", float("nan")

    def forward(self, X):
        self.n_calls += 1
        self.n_trained += self.training
        return self.scale * self.last(self.dropout(torch.tanh(self.first(X)))) * (1 + 0.001 * self.n_trained)


class Penalised(NeuralNetRegressor):
    def __init__(self, *args, lam=1.0, **options):
        super().__init__(*args, **options)
        self.lam = lam

    def get_loss(self, y_pred, y_true, X=None, training=False):
        return super().get_loss(y_pred, y_true, X=X, training=training) + self.lam * y_pred.square().mean()


def train(**options):
    with seeded(0):
        callbacks = [TrajectoryRecorder(n_checkpoints=3)]
        return Penalised(Scaled, callbacks=callbacks, train_split=None, verbose=0, max_epochs=2, **options).fit(X, y)


def said_by(net, method=TracIn, X=X, y=y, **options):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        method(**options).fit(net, X, y)
    return [str(w.message) for w in said if "in the recorded training and is" in str(w.message)]


def change(net, name, value):
    owner, _, attribute = name.rpartition(".")
    owner = net if not owner else net.module_ if owner == "module_" else getattr(net.module_, owner)
    setattr(owner, attribute, value)


CHANGES = {
    "module_.scale": (1.0, 3.0), "dropout.p": (0.3, 0.6), "lam": (1.0, 5.0),
}  # fmt: skip


@pytest.mark.parametrize("method", [TracIn, InfluenceFunctions])
@pytest.mark.parametrize("name", list(CHANGES))
def test_it_is_said(name, method):
    net = train()
    assert said_by(net, method) == []
    then, now = CHANGES[name]
    change(net, name, now)
    (message,) = said_by(net, method)
    assert f"{name.split('.')[-1]} was {then!r} in the recorded training and is {now!r}" in message
    change(net, name, then)
    assert said_by(net, method) == []


def test_of_a_stored_record(tmp_path):
    net = train()
    Trajectory.from_net(net).save(tmp_path / "t")
    net.module_.scale = 2.0
    assert len(said_by(net, trajectory=tmp_path / "t")) == 1


def test_what_an_honest_user_does_says_nothing():
    net = train()
    net.predict(X)  # counts calls
    net.module_.train()
    net.verbose, net.lr, net.batch_size = 1, 0.5, 3
    net.set_params(max_epochs=7)
    net.module_.name, net.module_.warmth = "b", float("nan")
    net.module_.unused = 5.0
    assert said_by(net) == []
    assert said_by(pickle.loads(pickle.dumps(net))) == []
    net.module_.double()
    assert said_by(net, InfluenceFunctions) == []
    net.module_.float().n_trained = 1_000  # it changed in the training too: what it is now says nothing of it
    assert said_by(net) == []


def test_class_weights():
    class Net(NeuralNetRegressor):
        pass

    with seeded(0):
        net = Net(
            Scaled, criterion=nn.HuberLoss, criterion__delta=0.5, callbacks=[TrajectoryRecorder(n_checkpoints=3)],
            train_split=None, verbose=0, max_epochs=2,
        ).fit(X, y)  # fmt: skip
    net.criterion_.delta = 0.1
    (message,) = said_by(net)
    assert "criterion_.delta was 0.5" in message
