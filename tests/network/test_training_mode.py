"""What a network does otherwise in training, told apart from dropout, noise and statistics; and in what precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch import NeuralNet
from torch import nn

from sklearn_source.network import Network


class Net(NeuralNet):
    def infer(self, x, **params):
        return super().infer(2 * x if self.module_.training else x, **params)


class Noisy(NeuralNet):
    def infer(self, x, **params):
        return super().infer(x + torch.randn_like(x) if self.module_.training else x, **params)


class Auxiliary(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        return (self.layer(x), x) if self.training else self.layer(x)


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.calls += 1
        return self.layer(x)


def regularised():
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.RReLU(), nn.Linear(6, 2))


@pytest.mark.parametrize(
    ("cls", "module", "otherwise"),
    [
        (NeuralNet, regularised, False),
        (Net, regularised, True),
        (Net, Auxiliary, True),
        (Noisy, regularised, False),
        (NeuralNet, Auxiliary, False),
        (NeuralNet, Counts, False),
    ],
)
def test_what_differs_in_training(cls, module, otherwise):
    torch.manual_seed(0)
    network = Network.from_net(cls(module(), criterion=nn.MSELoss).initialize())
    x = torch.randn(5, 4)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    buffers = {name: value.clone() for name, value in network.buffers().items()}
    network.compare_modes(x)
    assert network.trains_otherwise is otherwise
    expected = network.module(2 * x if otherwise else x)
    torch.testing.assert_close(network.forward_as_trained(x), expected)
    torch.testing.assert_close(network.forward(x), network.module(x))
    assert not any(layer.training for layer in network.module.modules())
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])
    assert all(torch.equal(buffers[name], value) for name, value in network.buffers().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_autocast_around_a_forward_pass_changes_nothing(make_net, dtype):
    network = Network.from_net(make_net(dtype=dtype))
    x = torch.randn(3, 5, dtype=dtype)
    expected = network.forward(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(network.forward(x), expected)
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
        assert torch.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cpu")
