"""The tiny trained nets and tables of the checks."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from skorch import NeuralNetClassifier, NeuralNetRegressor

from ...modules import MLP
from ...network import train_to_the_end
from ...trajectory import TrajectoryRecorder
from .._random import seeded

TASKS = ("regression", "classification")
# Trained nets by their rows: every check asks for the same few, and a copy costs a third of a training.
_TRAINED: dict = {}


class DoubleMLP(MLP):
    """The same network in float64, from the same initial weights."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.double()


@dataclass(frozen=True)
class Case:
    """Training rows, queries, and the net that learned the rows.

    Attributes
    ----------
    task : str
    X, y : ndarray
        24 training rows.
    X_query, y_query : ndarray
        7 queries.
    dtype : numpy dtype
        Of the numbers and of the net.
    """

    task: str
    X: np.ndarray
    y: np.ndarray
    X_query: np.ndarray
    y_query: np.ndarray
    dtype: type = np.float32

    def new_net(self):
        """An untrained net with a recorder."""
        options = {
            "module": MLP if self.dtype == np.float32 else DoubleMLP,
            "module__n_features": self.X.shape[1],
            "module__hidden": (5,),
            "module__activation": torch.nn.Tanh,
            "optimizer": torch.optim.SGD,
            "optimizer__momentum": 0.5,
            "lr": 0.05,
            "batch_size": 8,
            "max_epochs": 4,
            "train_split": None,
            "verbose": 0,
            "callbacks": [("recorder", TrajectoryRecorder(n_checkpoints=6))],
        }
        if self.task == "regression":
            return NeuralNetRegressor(**options)
        return NeuralNetClassifier(**options, module__n_outputs=3, criterion=torch.nn.CrossEntropyLoss)

    def trained_net(self):
        """The same net at every call, trained on ``X, y``: a copy of its own for whoever asks."""
        key = (self.task, self.dtype, self.X.tobytes(), self.y.tobytes())
        if key not in _TRAINED:
            net = self.new_net()
            with seeded(0):
                train_to_the_end(net.fit, self.X, self.y)
            _TRAINED[key] = net
        return copy.deepcopy(_TRAINED[key])


def make_case(task, dtype=np.float32, seed=0):
    """Rows that a network of five hidden units cannot fit exactly."""
    rng = np.random.RandomState(seed)
    X = rng.normal(size=(31, 3)).astype(np.float32).astype(dtype)
    signal = np.sin(X[:, 0]) + X[:, 1] * X[:, 2] + 0.3 * rng.normal(size=len(X))
    if task == "regression":
        y = signal.astype(np.float32).astype(dtype)[:, None]
    else:
        y = np.digitize(signal, [-0.5, 0.5]).astype(np.int64)
    return Case(task, X[:24], y[:24], X[24:], y[24:], dtype)
