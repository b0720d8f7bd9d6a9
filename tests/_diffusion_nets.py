"""Small diffusion models that several tests train."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from sklearn_source import TrajectoryRecorder
from sklearn_source.diffusion import DiffusionNet


class Denoiser(nn.Module):
    """Two layers on a row, its timestep, and its class where there is one."""

    def __init__(self, n_features=4, hidden=6, n_timesteps=20, n_classes=0):
        super().__init__()
        self.n_timesteps, self.n_classes = n_timesteps, n_classes
        self.one, self.two = nn.Linear(n_features + 1 + n_classes, hidden), nn.Linear(hidden, n_features)

    def forward(self, sample, timestep, class_labels=None):
        told = [sample, timestep[:, None].to(sample) / self.n_timesteps]
        if self.n_classes:
            told.append(nn.functional.one_hot(class_labels, self.n_classes).to(sample))
        return self.two(torch.tanh(self.one(torch.cat(told, dim=1))))


def rows(n=12, n_features=4, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=(n, n_features)).astype(dtype)


def small_net(X=None, y=None, seed=0, recorder=None, **options):
    """A :class:`Denoiser`, fitted where rows are given."""
    settings = {
        "n_timesteps": 20, "optimizer": torch.optim.SGD, "lr": 0.1, "max_epochs": 3, "batch_size": 5, "verbose": 0,
        "train_split": None, "iterator_train__shuffle": True,
        "callbacks": [recorder or TrajectoryRecorder(n_checkpoints=3)],
    }  # fmt: skip
    settings.update(options)
    torch.manual_seed(seed)
    net = DiffusionNet(settings.pop("module", Denoiser), **settings)
    return net if X is None else net.fit(X, y)
