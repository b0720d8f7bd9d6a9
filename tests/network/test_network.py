from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from skorch import NeuralNet, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklearn_source.network import Network
from tests.network._regressor import Body, forward


def test_outputs_are_those_of_predict(net, data):
    network = Network.from_net(net)
    assert not any(m.training for m in network.module.modules())
    np.testing.assert_allclose(forward(network, data[0]).numpy(), net.predict(data[0]), rtol=1e-6)


def test_pickle(net, data):
    network = Network.from_net(net)
    rows = network.prepare(*data)
    network.calibrate(rows)
    network.load({k: 2 * v for k, v in network.parameters().items()})
    again = pickle.loads(pickle.dumps(network))
    torch.testing.assert_close(forward(again, data[0]), forward(network, data[0]))
    assert again.module is again._private_net.net.module_
    assert again.module is again.row_loss.batch_loss.private_net.net.module_
    x, y = rows.batch(slice(None))
    torch.testing.assert_close(again.row_loss(again.forward(x), y), network.row_loss(network.forward(x), y))
    assert len(pickle.dumps(network)) < 40_000  # no optimizer state, no data, no second copy of the weights


def test_pickle_keeps_the_calibration(data):
    net = NeuralNetClassifier(
        Body(3), criterion=nn.CrossEntropyLoss, criterion__weight=torch.tensor([1.0, 2, 3])
    ).initialize()
    network, y = Network.from_net(net), np.arange(32) % 3
    network.calibrate(network.prepare(data[0], y))
    again = pickle.loads(pickle.dumps(network))
    x, t = again.prepare(data[0], y).batch([2])
    torch.testing.assert_close(again.row_loss(again.forward(x), t), network.row_loss(network.forward(x), t))


class TwoModules(NeuralNet):
    def initialize_module(self):
        super().initialize_module()
        self.other_ = nn.Linear(1, 1)
        return self


@pytest.mark.parametrize(
    ("net", "error", "match"),
    [
        (NeuralNetRegressor(Body), NotFittedError, "not initialized"),
        (NeuralNetRegressor, TypeError, "the class NeuralNetRegressor"),
        (LinearRegression(), TypeError, "LinearRegression"),
        (None, TypeError, "skorch net"),
        (TwoModules(Body, criterion=nn.MSELoss).initialize(), ValueError, "single module"),
        (NeuralNetRegressor(nn.LazyLinear(1)).initialize(), NotFittedError, "lazy"),
    ],
    ids=["uninitialized", "class", "sklearn", "none", "two modules", "lazy"],
)
def test_nets_that_cannot_be_read(net, error, match):
    with pytest.raises(error, match=match):
        Network.from_net(net)


def test_a_module_without_parameters(net):
    vars(net)["module_"] = nn.ReLU()
    with pytest.raises(ValueError, match="without: nothing in it was trained"):
        Network.from_net(net)


def test_float64_and_dtype(data):
    net = NeuralNetRegressor(nn.Linear(4, 1).double()).initialize()
    network = Network.from_net(net)
    assert network.dtype == torch.float64
    assert network.device == torch.device("cpu")
    assert forward(network, data[0]).dtype == torch.float64


def test_a_module_that_returns_no_tensor(data):
    class Dictionary(nn.Linear):
        def forward(self, X):
            return {"out": super().forward(X)}

    network = Network.from_net(NeuralNetRegressor(Dictionary(4, 1)).initialize())
    with pytest.raises(TypeError, match="returns a tensor"):
        forward(network, data[0])
