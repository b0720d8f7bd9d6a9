"""Losses that draw, by the protocol: augmentation and a variational autoencoder, against autograd by hand."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from skorch import NeuralNet, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklearn_source import GradientSimilarity, InfluenceFunctions, TracIn, Trajectory, TrajectoryRecorder
from sklearn_source.base import flat_gradients
from sklearn_source.inspection._predictions import predict_rows
from sklearn_source.network import Network
from sklearn_source.stochastic import StochasticLossMixin
from tests._methods import METHODS

SETTINGS = {
    "optimizer": torch.optim.SGD, "lr": 0.1, "max_epochs": 3, "batch_size": 5, "verbose": 0, "train_split": None,
}  # fmt: skip


class Augmented(StochasticLossMixin, NeuralNetClassifier):
    """Rows are moved a little, and some turned about."""

    def example(self, X, y, random):
        sign = 2.0 * random.integers(0, 2).to(X) - 1
        return sign[:, None] * X + 0.3 * random.normal(X.shape[1:]), y


class Autoencoder(nn.Module):
    """Variational: the noise is an input."""

    def __init__(self):
        super().__init__()
        self.inward, self.outward = nn.Linear(4, 4), nn.Linear(2, 4)

    def forward(self, X, noise):
        mean, log_variance = self.inward(X).chunk(2, dim=1)
        return self.outward(mean + noise * (log_variance / 2).exp()), mean, log_variance


class VAE(StochasticLossMixin, NeuralNet):
    def example(self, X, y, random):
        return {"X": X, "noise": random.normal((2,))}, X

    def get_loss(self, y_pred, y_true, X=None, training=False):
        made, mean, log_variance = y_pred
        divergence = (mean.square() + log_variance.exp() - log_variance - 1).sum(1) / 2
        return ((made - y_true).square().sum(1) + divergence).mean()


def trained(kind):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(15, 4)).astype(np.float32), rng.integers(3, size=15)
    torch.manual_seed(0)
    recorded = {"callbacks": [TrajectoryRecorder(3)]}
    if kind == "augmented":
        net = Augmented(nn.Linear, module__in_features=4, module__out_features=3, criterion=nn.CrossEntropyLoss)
        return net.set_params(**SETTINGS, **recorded).fit(X, y), X, y
    return VAE(Autoencoder, criterion=nn.MSELoss).set_params(**SETTINGS, **recorded).fit(X), X, None


@pytest.mark.parametrize("kind", ["augmented", "vae"])
def test_the_record_is_found_true(kind):
    net, X, y = trained(kind)
    (stage,) = Trajectory.from_net(net).verify(net, X, y).stages
    assert stage.verdict == "as recorded"
    np.testing.assert_allclose(stage.ratio, 1, atol=1e-4)


@pytest.mark.parametrize("kind", ["augmented", "vae"])
def test_gradients_of_a_row_are_means_over_its_draws(kind):
    """By autograd on the net's own loss of every example by itself."""
    net, X, y = trained(kind)
    est = GradientSimilarity(metric="dot", random_state=0, n_draws=4, measurement="neg_loss").fit(net, X, y)
    draws = est._rows.draws
    assert len(draws) == 4
    names, parameters = zip(*net.module_.named_parameters())
    network = Network.from_net(net)

    def gradient(x, target, draw):
        rows = network.prepare(x, target, draws=[draw])
        inputs, targets = (take_first(tree) for tree in rows.batch([0]))
        net.module_.eval()
        loss = net.get_loss(net.infer(inputs), targets, X=inputs)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])

    found = flat_gradients(est._gradients.of_loss(*est._rows.batch(slice(None))))
    for i in (0, 7):
        own = sum(gradient(X[[i]], None if y is None else y[[i]], draw) for draw in draws) / 4
        np.testing.assert_allclose(found[i].norm(), own.norm(), rtol=1e-5)
        for q in (1, 2):
            measured = [gradient(X[[q]], None if y is None else y[[q]], draw) for draw in net.measured_draws()]
            score = est.transform(X[[q]], None if y is None else y[[q]])[0, i]
            np.testing.assert_allclose(score, sum(measured) @ own / len(measured), rtol=1e-4, atol=1e-6)


def take_first(tree):
    """The examples of a first draw."""
    if isinstance(tree, dict):
        return {key: value[:, 0] for key, value in tree.items()}
    return tree[:, 0]


@pytest.mark.parametrize("kind", ["augmented", "vae"])
def test_every_method_takes_such_a_net(kind):
    net, X, y = trained(kind)
    before = copy.deepcopy(net.module_.state_dict())
    state = torch.get_rng_state()
    for cls in METHODS:
        options = {"measurement": "neg_loss"} if "measurement" in cls().get_params() else {}
        est = cls(random_state=0, **options).fit(net, X, y)
        scores = est.transform(X[:3], None if y is None else y[:3])
        assert scores.shape == (3, 15), cls
        assert np.isfinite(scores).all(), cls
        assert np.array_equal(scores, est.transform(X[:3], None if y is None else y[:3])), cls
    assert torch.equal(state, torch.get_rng_state())
    for name, value in before.items():
        assert torch.equal(value, net.module_.state_dict()[name])


def test_scores_do_not_depend_on_batches():
    net, X, y = trained("augmented")
    scores = [
        InfluenceFunctions(damping=0.1, batch_size=size, random_state=0, curvature="exact").fit(net, X, y).transform(X)
        for size in (None, 4)
    ]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-4, atol=1e-6)


class Noisy(StochasticLossMixin, NeuralNetRegressor):
    def example(self, X, y, random):
        return X + 0.5 * random.normal(X.shape[1:]), y


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_a_prediction_is_a_mean_over_draws(kind):
    if kind == "classification":
        net, X, y = trained("augmented")
    else:
        X, y = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32), np.ones((9, 1), dtype=np.float32)
        net = Noisy(nn.Linear, module__in_features=4, module__out_features=1, **SETTINGS).fit(X, y)
    output = None if kind == "regression" else 2
    est = GradientSimilarity(metric="dot", n_draws=5, measurement="prediction", output=output).fit(net, X, y)
    network = Network.from_net(net)
    with torch.no_grad():
        examples = [take_first(network.prepare(X[:1], y[:1], draws=[d]).batch([0])[0]) for d in net.measured_draws()]
        by_hand = torch.stack([net.module_(x)[0, output or 0] for x in examples]).mean()
        rows = network.prepare(X[:1], y[:1], draws=net.measured_draws())
        found = est._measure(network.forward(rows.batch([0])[0]))
    torch.testing.assert_close(found[0], by_hand)
    assert np.isfinite(est.transform(X)).all()


def test_rows_are_shown_with_their_measured_loss():
    net, X, y = trained("augmented")
    network = Network.from_net(net)
    rows = network.prepare(X, y, draws=net.measured_draws())
    network.calibrate(rows)
    x, targets = rows.batch(slice(None))
    with torch.no_grad():
        losses = network.row_loss(network.forward(x), targets, x)
    shown = predict_rows(net, X, y)
    np.testing.assert_allclose(shown.loss, losses, rtol=1e-5)
    assert shown.target is None  # of every draw another


def test_draws_of_a_loss_that_draws_nothing_are_refused():
    net = NeuralNetClassifier(nn.Linear, module__in_features=4, module__out_features=3, criterion=nn.CrossEntropyLoss)
    net.set_params(**SETTINGS, callbacks=[TrajectoryRecorder(2)])
    X, y = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32), np.arange(9) % 3
    with pytest.raises(ValueError, match="n_draws=4 is a number of draws of a loss that draws"):
        TracIn(n_draws=4).fit(net.fit(X, y), X, y)


def test_a_net_without_examples_says_so():
    class Nothing(StochasticLossMixin, NeuralNet):
        pass

    net = Nothing(nn.Linear, module__in_features=4, module__out_features=1, criterion=nn.MSELoss, **SETTINGS)
    with pytest.raises(NotImplementedError, match="give it example"):
        net.fit(np.zeros((5, 4), dtype=np.float32))
