"""Losses that read more than one output of the module: the same scores as those of one output that holds them all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skorch import NeuralNet, NeuralNetRegressor
from torch import nn

from sklearn_source import SourceAttribution, TracIn, TrajectoryRecorder
from tests._methods import GRADIENT_METHODS

METHODS = [method for method in GRADIENT_METHODS if method.has_unit]


class Heads(nn.Module):
    """Mean and log-variance, in a tuple or side by side."""

    def __init__(self, apart):
        super().__init__()
        self.apart, self.hidden, self.last = apart, nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        out = self.last(torch.tanh(self.hidden(x)))
        return (out[:, :1], out[:, 1:], None) if self.apart else out


class OfTuple(nn.Module):
    def forward(self, y_pred, y_true):
        mean, log_variance, _ = y_pred
        return F.gaussian_nll_loss(mean, y_true, log_variance.exp())


class OfOne(nn.Module):
    def forward(self, y_pred, y_true):
        return F.gaussian_nll_loss(y_pred[:, :1], y_true, y_pred[:, 1:].exp())


class GetLossOfTuple(NeuralNetRegressor):
    def get_loss(self, y_pred, y_true, *args, **kwargs):
        return OfTuple()(y_pred, y_true)


def fitted(cls, module, X, y=None, **options):
    settings = {"train_split": None, "verbose": 0, "max_epochs": 3, "batch_size": 8, "lr": 0.05, **options}
    torch.manual_seed(0)
    return cls(module, callbacks=[TrajectoryRecorder(n_checkpoints=3)], **settings).fit(X, y)


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(24, 3)).astype("float32")
    return X, (X[:, :1] - X[:, 1:2] ** 2).astype("float32")


# Every two of method, place of the loss and measurement meet.
CASES = [
    (method, *loss, measurement)
    for i, method in enumerate(METHODS)
    for j, loss in enumerate([(NeuralNetRegressor, OfTuple), (GetLossOfTuple, nn.MSELoss)])
    for measurement in [("auto", "neg_loss")[(i + j) % 2]]
]


@pytest.mark.parametrize("method, cls, criterion, measurement", CASES)
def test_mean_and_variance(rows, method, cls, criterion, measurement):
    X, y = rows
    pair = fitted(cls, Heads, X, y, criterion=criterion, module__apart=True)
    one = fitted(NeuralNetRegressor, Heads, X, y, criterion=OfOne, module__apart=False)
    output = None if measurement == "neg_loss" else 0
    found = method(measurement=measurement).fit(pair, X, y)
    expected = method(measurement="prediction" if output == 0 else measurement, output=output).fit(one, X, y)
    np.testing.assert_allclose(found.transform(X[:3], y[:3]), expected.transform(X[:3], y[:3]), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.self_influence(), expected.self_influence(), rtol=1e-4, atol=1e-6)


def test_a_pair_of_inputs_with_a_contrastive_target():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 24, 6)).astype("float32")
    y = rng.choice([-1.0, 1.0], 24).astype("float32")

    class Siamese(nn.Module):
        def __init__(self, apart):
            super().__init__()
            self.apart, self.f = apart, nn.Linear(6, 4)

        def forward(self, a, b):
            outputs = self.f(a), self.f(b)
            return outputs if self.apart else torch.cat(outputs, 1)

    class Net(NeuralNet):
        def get_loss(self, out, y, *args, **kwargs):
            return F.cosine_embedding_loss(*(out if isinstance(out, tuple) else out.split(4, 1)), y)

    X, scores = {"a": a, "b": b}, []
    for apart in (True, False):
        net = fitted(Net, Siamese, X, y, criterion=nn.MarginRankingLoss, module__apart=apart)
        estimator = SourceAttribution(measurement="neg_loss").fit(net, X, y)
        scores.append(estimator.transform({"a": a[:3], "b": b[:3]}, y[:3]))
    np.testing.assert_allclose(*scores, rtol=1e-4, atol=1e-6)


class AutoEncoder(nn.Module):
    def __init__(self, variational=False):
        super().__init__()
        self.variational, self.encode, self.decode = variational, nn.Linear(3, 4), nn.Linear(2, 3)

    def forward(self, x):
        mean, log_variance = self.encode(x).split(2, 1)
        if not self.variational:
            return self.decode(torch.tanh(mean))
        noise = torch.randn_like(mean) if self.training else 0.0
        return self.decode(mean + noise * (log_variance / 2).exp()), mean, log_variance


class OfX(NeuralNet):
    def get_loss(self, y_pred, y_true, X, *args, **kwargs):
        if not isinstance(y_pred, tuple):
            return F.mse_loss(y_pred, X)
        decoded, mean, log_variance = y_pred
        divergence = (log_variance.exp() + mean**2 - 1 - log_variance).sum(1) / 2
        return F.mse_loss(decoded, X) + 0.1 * divergence.mean()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("variational", [False, True])
def test_nets_trained_without_targets(rows, method, variational):
    X, y = rows
    options = {"criterion": nn.MSELoss, "module__variational": variational}
    net, with_y = fitted(OfX, AutoEncoder, X, **options), fitted(OfX, AutoEncoder, X, y, **options)
    expected = method(measurement="neg_loss").fit(with_y, X, y)
    # How rows are given is read before any method sees them.
    for args in ((X,), (X, None), (torch.from_numpy(X),)) if method is METHODS[0] else ((X,),):
        found = method().fit(net, *args)
        np.testing.assert_allclose(found.transform(X[:3]), expected.transform(X[:3], y[:3]), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found.self_influence(), expected.self_influence(), rtol=1e-5, atol=1e-7)
    assert found.top_influences(X[:3], k=2).indices.shape == (3, 2)
    prediction = method(measurement="prediction", output=1).fit(net, X)
    assert prediction.transform(X[:3]).shape == (3, 24)
    bare = method(OfX(AutoEncoder, max_epochs=4, train_split=None, verbose=0, **options), random_state=0)
    assert bare.fit(X).transform(X[:3]).shape == (3, 24)


def test_targets_that_are_needed_are_asked_for(rows):
    X, y = rows

    class ReadsThem(NeuralNet):
        def get_loss(self, y_pred, y_true, *args, **kwargs):
            return F.mse_loss(y_pred, y_true)

    for cls in (NeuralNetRegressor, ReadsThem):
        net = fitted(cls, lambda: nn.Linear(3, 1), X, y, criterion=nn.MSELoss)
        with pytest.raises(ValueError, match="requires y"):
            TracIn().fit(net, X)
