from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch import NeuralNetRegressor

from tests._small_nets import make_net, rng  # noqa: F401  (fixtures)
from tests.network._regressor import Body


@pytest.fixture
def data():
    X = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
    return X, X[:, :1] * 2 + 1


@pytest.fixture
def net(data):
    torch.manual_seed(0)
    return NeuralNetRegressor(Body, max_epochs=2, batch_size=8, train_split=None, verbose=0).fit(*data)
