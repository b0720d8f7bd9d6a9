"""Losses over tokens and sample weights: SOURCE against exact differentiation of the training in each row's weight."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch import NeuralNet, NeuralNetRegressor
from torch import nn
from torch.nn.functional import cross_entropy

from sklearn_source import (
    GradientSimilarity,
    InfluenceFunctions,
    RepresentationSimilarity,
    SourceAttribution,
    TracIn,
    TrajectoryRecorder,
)
from sklearn_source.curvature import EKFAC, ExactGaussNewton

N, T, D, V, STEPS, LR = 11, 6, 3, 3, 48, 0.15
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, T, D)) * np.array([2.0, 1.0, 0.5])
LENGTHS = RNG.integers(1, T + 1, N)
MASK = (np.arange(T) < LENGTHS[:, None]).astype(float)
Y = np.where(MASK > 0, (X @ RNG.normal(size=(D, V)) + RNG.gumbel(size=(N, T, V))).argmax(-1), -100)
QUERIES, Y_QUERIES = RNG.normal(size=(4, T, D)), RNG.integers(0, V, (4, T))
Y_QUERIES[1, 2:] = -100


@pytest.fixture(autouse=True)
def initial_weights():
    """Modules are made in the tests: how close SOURCE comes depends a little on where they start."""
    torch.manual_seed(0)


class Flattened(nn.Module):
    def __init__(self, reduction="mean"):
        super().__init__()
        self.kind = reduction  # not "reduction": a criterion that cannot be asked for its elements

    def forward(self, output, y):
        return cross_entropy(output.reshape(-1, V), y.reshape(-1), reduction=self.kind)


class Masked(NeuralNet):
    def infer(self, x, **fit_params):
        return super().infer(x["x"])

    def get_loss(self, y_pred, y_true, X=None, training=False):
        loss = cross_entropy(y_pred.reshape(-1, V), y_true.reshape(-1), reduction="none")
        return (loss * X["mask"].reshape(-1)).sum() / X["mask"].sum()


def fitted(cls, module, criterion, X, y, lr=LR, **options):
    torch.manual_seed(0)
    module = module.double()
    initial = {name: p.detach().clone() for name, p in module.named_parameters()}
    net = cls(
        module, criterion=criterion, optimizer=torch.optim.SGD, lr=lr, batch_size=-1, max_epochs=STEPS, verbose=0,
        train_split=None, callbacks=[TrajectoryRecorder(n_checkpoints=8)], **options,
    ).fit(X, y)  # fmt: skip
    return net, initial


def exact(initial, forward, loss, measure, lr=LR):
    """(trained values, (n_query, N)): autograd through every step; ``loss(output, weights)`` as training minimised."""
    weights = torch.ones(N, dtype=torch.float64, requires_grad=True)
    theta = {name: value.clone().requires_grad_() for name, value in initial.items()}
    for _ in range(STEPS):
        theta = {name: value.detach().requires_grad_() if not value.requires_grad else value
                 for name, value in theta.items()}  # fmt: skip
        value = loss(forward(theta), weights)
        grads = torch.autograd.grad(value, list(theta.values()), create_graph=True)
        theta = {name: p - lr * g for (name, p), g in zip(theta.items(), grads)}
    rows = [torch.autograd.grad(f, weights, retain_graph=True)[0] for f in measure(theta)]
    return theta, torch.stack(rows).numpy()


def linear(x):
    x = torch.from_numpy(x)
    return lambda theta: x @ theta["weight"].T + theta["bias"]


def token_sums(output, y):
    """(B,) sums of the losses of the tokens that are there."""
    y = torch.as_tensor(y)
    own = output.log_softmax(-1).gather(-1, y.clamp(min=0)[..., None])[..., 0]
    return -(own * (y >= 0)).sum(1)


def log_odds(output, y):
    y = torch.as_tensor(y)
    p = output.softmax(-1).gather(-1, y.clamp(min=0)[..., None])[..., 0]
    return ((p / (1 - p)).log() * (y >= 0)).sum(1) / (y >= 0).sum(1)


def neg_mean(output, y):
    return -token_sums(output, y) / (torch.as_tensor(y) >= 0).sum(1)


def close(found, truth, tolerance):
    return np.linalg.norm(found - truth) < tolerance * np.linalg.norm(truth)


def compare(net, initial, data, loss, queries, y_queries, measures, forward=None, lr=LR, tolerance=0.01):
    for name, measure in measures.items():
        theta, truth = exact(
            initial, forward or linear(X), loss,
            lambda theta, measure=measure: measure(linear(QUERIES)(theta), y_queries), lr,
        )  # fmt: skip
        for key, p in net.module_.named_parameters():
            torch.testing.assert_close(p.detach(), theta[key].detach())
        est = SourceAttribution(n_segments=8, curvature=ExactGaussNewton(fisher="exact"), measurement=name).fit(
            net, *data
        )
        found = est.transform(queries, y_queries)
        assert close(found, truth, tolerance)
        assert not close(found * LENGTHS / LENGTHS.mean(), truth, 5 * tolerance)  # rows of mean losses would be so
    return est


@pytest.mark.parametrize("kind", ["mean", "sum"])
def test_a_language_model_whose_criterion_flattens(kind):
    lr = LR if kind == "mean" else LR / LENGTHS.sum()
    net, initial = fitted(NeuralNet, nn.Linear(D, V), Flattened, X, Y, lr, criterion__reduction=kind)

    def loss(output, weights):
        total = (weights * token_sums(output, Y)).sum()
        return total / LENGTHS.sum() if kind == "mean" else total

    measures = {"auto": log_odds, "neg_loss": neg_mean if kind == "mean" else lambda o, y: -token_sums(o, y)}
    compare(net, initial, (X, Y), loss, QUERIES, Y_QUERIES, measures, lr=lr)


def test_a_padding_mask_in_x():
    data = {"x": X, "mask": MASK}
    net, initial = fitted(Masked, nn.Linear(D, V), nn.MSELoss, data, np.maximum(Y, 0))

    def loss(output, weights):
        return (weights * token_sums(output, Y)).sum() / LENGTHS.sum()

    queries = {"x": QUERIES, "mask": (Y_QUERIES >= 0).astype(float)}

    def masked(measure):
        return lambda output, y: measure(output, Y_QUERIES)

    measures = {"auto": masked(log_odds), "neg_loss": masked(neg_mean)}
    compare(net, initial, (data, np.maximum(Y, 0)), loss, queries, np.maximum(Y_QUERIES, 0), measures)


def test_every_method_and_every_fisher_takes_a_language_model():
    net, _ = fitted(NeuralNet, nn.Linear(D, V), Flattened, X, Y)

    def scores_of(random_state=None, **options):
        est = SourceAttribution(n_segments=1, curvature=EKFAC(**options), random_state=random_state)
        return est.fit(net, X, Y).transform(QUERIES, Y_QUERIES)

    expected = scores_of(fisher="exact")
    auto = scores_of(random_state=0, n_samples=30)
    assert close(auto, expected, 0.1)
    # 18 outputs per row: "auto" is one draw per token, not a column for each.
    assert not np.array_equal(auto, scores_of(random_state=1, n_samples=30))
    np.testing.assert_array_equal(auto, scores_of(random_state=0, n_samples=30, fisher="sampled"))
    for method in (InfluenceFunctions(curvature=EKFAC(fisher="sampled"), random_state=0),
                   InfluenceFunctions(curvature=EKFAC(coupling="krylov")), TracIn(),
                   GradientSimilarity(), RepresentationSimilarity()):  # fmt: skip
        scores = method.fit(net, X, Y).transform(QUERIES, Y_QUERIES)
        assert np.isfinite(scores).all()
        assert scores.shape == (4, N)
        assert np.isfinite(method.self_influence()).all()
    with pytest.raises(ValueError, match='classes at several positions: use "log_odds", "neg_loss" or a callable'):
        TracIn(measurement="prediction").fit(net, X, Y)


class Weighted(NeuralNetRegressor):
    divide = True

    def infer(self, x, **fit_params):
        return super().infer(x["data"])

    def get_loss(self, y_pred, y_true, X=None, training=False):
        loss = super().get_loss(y_pred, y_true, X, training)[:, 0]
        weight = X["sample_weight"]
        return (weight * loss).sum() / weight.sum() if self.divide else (weight * loss).mean()


class MeanOfWeighted(Weighted):
    divide = False


@pytest.mark.parametrize("cls", [Weighted, MeanOfWeighted])
def test_sample_weights(cls):
    """skorch's idiom: the weights travel in X, for the loss alone."""
    x, rng = X[:, 0], np.random.default_rng(1)
    y = x @ rng.normal(size=(D, 1)) + rng.normal(size=(N, 1))
    weight = rng.uniform(0.1, 3, N)
    weight[3] = 0
    data = {"data": x, "sample_weight": weight}
    net, initial = fitted(cls, nn.Linear(D, 1), nn.MSELoss, data, y, 0.03, criterion__reduction="none")
    w, target = torch.from_numpy(weight), torch.from_numpy(y)

    def loss(output, weights):
        return (weights * w * ((output - target) ** 2)[:, 0]).sum() / (w.sum() if cls.divide else N)

    q = QUERIES[:, 0]
    theta, truth = exact(initial, linear(x), loss, lambda theta: linear(q)(theta)[:, 0], 0.03)
    torch.testing.assert_close(net.module_.weight.detach(), theta["weight"].detach())
    est = SourceAttribution(n_segments=8, curvature="exact").fit(net, data, y)
    found = est.transform({"data": q, "sample_weight": np.ones(4)})
    assert close(found, truth, 0.015)
    assert not found[:, 3].any()
    # A query needs no weight for its prediction; and none but the loss reads it.
    np.testing.assert_array_equal(est.transform({"data": q}), found)
    neg_loss = SourceAttribution(measurement="neg_loss").fit(net, data, y)
    with pytest.raises(ValueError, match="sample_weight"):
        neg_loss.transform({"data": q}, np.zeros((4, 1)))
    assert np.isfinite(neg_loss.transform({"data": q, "sample_weight": np.ones(4)}, np.zeros((4, 1)))).all()
