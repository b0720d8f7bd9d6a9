"""Penalties inside the loss: scores against finite differences of the actual skorch training."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from skorch import NeuralNetRegressor
from torch import nn

from sklearn_source import SourceAttribution, TracIn, TrajectoryRecorder

N_ROWS, N_STEPS, STEP = 16, 80, 1e-4
ROWS = [0, 3, 9]  # whose effects are found by training again
ALPHA = 0.15


def problem():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N_ROWS, 4)) * np.array([2, 1, 0.5, 0.2])
    X -= X.mean(0)  # weight and bias are then uncoupled, and block-diagonal curvatures exact
    y = X @ rng.normal(size=(4, 1)) + 0.5 * rng.normal(size=(N_ROWS, 1))
    return X, y, rng.normal(size=(4, 4))


class WeightedRows(NeuralNetRegressor):
    """Targets carry the weight of the row in a last column, so that a row can be made to count a little less."""

    alpha = ALPHA

    def rows_loss(self, y_pred, y_true):
        target, weight = (y_true[:, :1], y_true[:, 1:]) if y_true.shape[1] > 1 else (y_true, 1.0)
        return (weight * (y_pred - target) ** 2).mean()

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        return self.rows_loss(y_pred, y_true) + self.penalty()


class L2(WeightedRows):
    def penalty(self):
        return self.alpha * sum(p.pow(2).sum() for p in self.module_.parameters())


class SumOverRows(L2):
    """The penalty once, the rows as often as there are any."""

    def rows_loss(self, y_pred, y_true):
        return N_ROWS * super().rows_loss(y_pred, y_true)

    alpha = N_ROWS * ALPHA


class TowardsOthers(WeightedRows):
    def penalty(self):
        return self.alpha * sum((p - 0.3).pow(2).sum() for p in self.module_.parameters())


class WeightOnly(WeightedRows):
    def penalty(self):
        return 2 * self.alpha * self.module_.weight.pow(2).sum()


class ElasticNet(WeightedRows):
    def penalty(self):
        w = self.module_.weight
        return self.alpha * w.pow(2).sum() + 0.02 * w.abs().sum()


class Frozen(WeightedRows):
    """Through the criterion, which holds the parameters."""

    def initialize_criterion(self):
        super().initialize_criterion()
        self.criterion_.held = list(self.module_.parameters())
        return self

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        return self.criterion_(y_pred, y_true)


class HoldingCriterion(nn.Module):
    def forward(self, y_pred, y_true):
        target, weight = (y_true[:, :1], y_true[:, 1:]) if y_true.shape[1] > 1 else (y_true, 1.0)
        return (weight * (y_pred - target) ** 2).mean() + ALPHA * sum(p.pow(2).sum() for p in self.held)


def trained(cls, X, y, **options):
    torch.manual_seed(0)
    module = nn.Linear(4, 1, dtype=torch.float64)
    settings = {"optimizer": torch.optim.SGD, "lr": 0.03, "batch_size": -1, "max_epochs": N_STEPS, "verbose": 0}
    settings |= {"train_split": None, "callbacks": [TrajectoryRecorder(n_checkpoints=25)], **options}
    return cls(module, **settings).fit(X, y)


def differences(cls, X, y, X_query, **options):
    """(n_query, ROWS) effect of each row's weight going from 1 to 1 - STEP, by training again, divided by STEP."""

    def outputs(weights):
        net = trained(cls, X, np.c_[y, weights], callbacks=None, **options)
        return net.predict(X_query)[:, 0]

    base, effects = outputs(np.ones(len(X))), []
    for row in ROWS:
        weights = np.ones(len(X))
        weights[row] -= STEP
        effects.append((base - outputs(weights)) / STEP)
    return np.array(effects).T


CASES = {
    "l2": (L2, {}),
    "sum over rows": (SumOverRows, {"lr": 0.03 / N_ROWS}),
    "towards others": (TowardsOthers, {}),
    "weights only": (WeightOnly, {}),
    "elastic net": (ElasticNet, {}),
    "criterion": (Frozen, {"criterion": HoldingCriterion}),
    "momentum": (L2, {"lr": 0.01, "optimizer__momentum": 0.5}),
    "adam": (L2, {"optimizer": torch.optim.RMSprop, "optimizer__eps": 1.0, "lr": 0.1}),
    "and weight decay": (L2, {"optimizer__weight_decay": 0.1}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_penalty_is_what_retraining_gives(name):
    cls, options = CASES[name]
    X, y, X_query = problem()
    X_query = X_query[:2]
    truth = differences(cls, X, y, X_query, **options)
    net = trained(cls, X, y, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found = SourceAttribution(n_segments=12).fit(net, X, y).transform(X_query)[:, ROWS]
        without = TracIn().fit(net, X, y).transform(X_query)[:, ROWS]
    assert np.linalg.norm(found - truth) < 0.03 * np.linalg.norm(truth)
    assert np.linalg.norm(without - truth) > 0.1 * np.linalg.norm(truth)
