"""Small nets to record."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch import NeuralNetRegressor
from torch import nn

from sklearn_source.trajectory import TrajectoryRecorder


class Net(nn.Module):
    """Two layers, batch norm (buffers) and dropout (randomness while training)."""

    def __init__(self, n_features=3, dropout=0.2):
        super().__init__()
        self.first = nn.Linear(n_features, 4)
        self.norm = nn.BatchNorm1d(4)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(4, 1)

    def forward(self, x):
        return self.last(self.dropout(torch.tanh(self.norm(self.first(x)))))


@pytest.fixture
def data():
    rng = np.random.RandomState(0)
    X = rng.randn(20, 3).astype(np.float32)
    return X, (X[:, :1] - X[:, 1:2] + 0.1 * rng.randn(20, 1)).astype(np.float32)


@pytest.fixture
def make_net():
    """Make a seeded net; the recorder comes last unless the callbacks hold one."""

    def make(recorder=None, callbacks=(), module=Net, **kwargs):
        callbacks = list(callbacks)
        if recorder is not False and not any(isinstance(callback, TrajectoryRecorder) for callback in callbacks):
            callbacks.append(TrajectoryRecorder() if recorder is None else recorder)
        settings = {"lr": 0.05, "batch_size": 5, "max_epochs": 3, "train_split": None, "verbose": 0} | kwargs
        cls = settings.pop("cls", NeuralNetRegressor)
        torch.manual_seed(0)
        return cls(module, callbacks=callbacks, **settings)

    return make


@pytest.fixture
def spy_sgd():
    """An SGD that keeps a list of its learning rates per group, and of the weights after each step."""

    # Once torch has made an SGD, the step of the class runs hooks too: a subclass that calls it runs them twice.
    torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)

    class SGD(torch.optim.SGD):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.lrs, self.weights = [], []

        def step(self, closure=None):
            with torch.enable_grad():
                loss = closure() if closure is not None else None
            self.lrs.append([float(group["lr"]) for group in self.param_groups])
            super().step()
            self.weights.append([value.detach().clone() for group in self.param_groups for value in group["params"]])
            return loss

    return SGD
