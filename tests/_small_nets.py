from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch import NeuralNet
from torch import nn


@pytest.fixture
def make_net():
    """An initialized net around a small MLP; ``dtype``, head and criterion as asked."""

    def make(cls=NeuralNet, criterion=nn.MSELoss, n_out=3, n_in=5, head=None, dtype=torch.float64, seed=0, **kwargs):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            layers = [nn.Linear(n_in, 6), nn.Tanh(), nn.Linear(6, n_out)] + ([head] if head is not None else [])
            module = nn.Sequential(*layers).to(dtype)
        net = cls(module, criterion=criterion, train_split=None, verbose=0, **kwargs).initialize()
        net.criterion_.to(dtype)
        return net

    return make


@pytest.fixture
def rng():
    return np.random.default_rng(0)
