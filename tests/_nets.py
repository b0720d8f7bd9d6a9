"""Small skorch nets that several test files train."""

from __future__ import annotations

import torch
from skorch import NeuralNetRegressor

from sklearn_source import TrajectoryRecorder
from sklearn_source.modules import MLP


def make_net(cls=NeuralNetRegressor, module=MLP, recorded=True, **options):
    defaults = {
        "optimizer": torch.optim.SGD,
        "lr": 0.05,
        "batch_size": 8,
        "max_epochs": 3,
        "train_split": None,
        "verbose": 0,
        "callbacks": [TrajectoryRecorder(n_checkpoints=6)] if recorded else None,
    }
    if module is MLP:
        defaults["module__hidden"] = (6,)
    return cls(module, **{**defaults, **options})
