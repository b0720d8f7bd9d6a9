"""Steps that are damped where the network leaves its linearisation, against dense matrices and an exact refit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn
from torch.func import functional_call, jacrev

from sklearn_source import InfluenceFunctions, SnapshotInfluence, TracIn, TrajectoryRecorder
from sklearn_source.base import _damped_step
from sklearn_source.curvature import EKFAC
from sklearn_source.inspection import predict_action
from tests.attribution._runs import relative

DAMPING = 0.005


@pytest.fixture(scope="module")
def deep():
    """A network of two layers, far from a minimum, and rows that it fits badly."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(16, 3))
    y = (X[:, 0] * X[:, 1] > 0).astype(np.int64) + (X[:, 2] > 1)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    net = NeuralNetClassifier(
        module, criterion=nn.CrossEntropyLoss, lr=0.5, max_epochs=30, batch_size=8, train_split=None, verbose=0,
        callbacks=[TrajectoryRecorder(n_checkpoints=3)],
    )  # fmt: skip
    return net.fit(X, y), X, y, rng.normal(size=(4, 3))


def changes_by_dense_matrices(net, X, y, X_query, weights, y_after):
    """Levenberg-Marquardt from its formulas: the change of log-odds, and by how much the step was damped."""
    module, start = net.module_, {name: p.detach() for name, p in net.module_.named_parameters()}
    X, X_query = torch.as_tensor(X), torch.as_tensor(X_query)
    before, after, w = torch.as_tensor(y), torch.as_tensor(y_after), torch.as_tensor(weights)
    shapes, theta = {k: v.shape for k, v in start.items()}, torch.cat([v.flatten() for v in start.values()])

    def outputs(flat, x):
        parts = flat.split([s.numel() for s in shapes.values()])
        return functional_call(module, {k: p.view(s) for (k, s), p in zip(shapes.items(), parts)}, (x,))

    def losses(o, labels):
        return nn.functional.cross_entropy(o, labels, reduction="none")

    def objective(d):
        o = outputs(theta + d, X)
        return (w * losses(o, after) - (pull * o).sum(1)).mean() + DAMPING * (d @ d) / 2

    first = outputs(theta, X).detach()
    p = first.softmax(1)
    pull = p - nn.functional.one_hot(before, 3)
    J = jacrev(outputs)(theta, X)  # (N, 3, P)
    H = torch.einsum("n,nci,ncd,ndj->ij", w, J, torch.diag_embed(p) - p[:, :, None] * p[:, None], J) / len(X)
    v = torch.einsum("nc,nci->i", w[:, None] * (p - nn.functional.one_hot(after, 3)) - pull, J) / len(X)
    k = 1.0
    while True:
        d = -torch.linalg.solve(H + k * DAMPING * torch.eye(len(theta)), v)
        foretold = v @ d + d @ (H + DAMPING * torch.eye(len(theta))) @ d / 2
        if abs(objective(d) - objective(0 * d) - foretold) <= 0.75 * abs(foretold):
            break
        k *= 2
    labels = outputs(theta, X_query).argmax(1)

    def log_odds(flat):
        o = outputs(flat, X_query)
        own = o.gather(1, labels[:, None])[:, 0]
        return own - o.scatter(1, labels[:, None], -torch.inf).logsumexp(1)

    return (jacrev(log_odds)(theta) @ d).numpy(), k


@pytest.mark.parametrize("batch_size", [None, 5])
def test_the_step_is_that_of_dense_matrices(deep, batch_size):
    net, X, y, X_query = deep
    method = InfluenceFunctions(damping=DAMPING, curvature=EKFAC(fisher="exact"), batch_size=batch_size).fit(net, X, y)
    weights = np.ones((4, len(X)))
    weights[0, 3], weights[1, [1, 4, 5, 9, 10]], weights[2, 2:5], weights[3, 0] = 0.0, 0.0, [0.5, 7.0, 0.0], 1.001
    found = [changes_by_dense_matrices(net, X, y, X_query, w, y) for w in weights]
    changes, damped = np.stack([c for c, _ in found], axis=1), [k for _, k in found]
    assert min(damped) == 1.0 < max(damped) < 64
    predicted = method.predict_reweighting(X_query, weights=weights, renormalize=False)
    np.testing.assert_allclose(predicted, changes, rtol=1e-6, atol=1e-9)
    full = method.predict_reweighting(X_query, weights=weights, renormalize=False, step="full")
    np.testing.assert_array_equal(full[:, 3], predicted[:, 3])
    assert max(relative(own, other) for own, other in zip(full.T, predicted.T)) > 0.1
    y_after = y.copy()
    y_after[[2, 6, 11, 12]] = (y[[2, 6, 11, 12]] + 1) % 3
    expected, k = changes_by_dense_matrices(net, X, y, X_query, np.ones(len(X)), y_after)
    assert k > 1
    np.testing.assert_allclose(
        method.predict_relabeling(X_query, y_train=y_after)[:, 0], expected, rtol=1e-6, atol=1e-9
    )


class Penalised(NeuralNetRegressor):
    def get_loss(self, y_pred, y_true, X=None, training=False):
        return super().get_loss(y_pred, y_true, X, training) + sum((p**2).sum() for p in self.module_.parameters())


@pytest.mark.parametrize("kind", [NeuralNetRegressor, Penalised])
def test_where_outputs_are_linear_and_the_loss_squared_nothing_is_damped(kind):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(12, 3)).astype(np.float32)
    y = rng.normal(size=(12, 1)).astype(np.float32)
    net = kind(
        nn.Linear, module__in_features=3, module__out_features=1, max_epochs=3, train_split=None, verbose=0,
        callbacks=[TrajectoryRecorder(n_checkpoints=3)],
    ).fit(X, y)  # fmt: skip
    method = SnapshotInfluence().fit(net, X, y)
    weights = np.ones((3, 12))
    weights[0, 0], weights[1, :9], weights[2, 5] = 0.0, 0.0, 1e4
    asked = {"weights": weights, "renormalize": False}
    np.testing.assert_array_equal(
        method.predict_reweighting(X[:4], **asked), method.predict_reweighting(X[:4], step="full", **asked)
    )


def test_a_logistic_regression_is_trained_again():
    """Trained to its minimum, with a weight decay: against Newton's method with the new weights."""
    rng = np.random.default_rng(1)
    X, decay = rng.normal(size=(30, 3)), 0.1
    y = (X[:, 0] + 0.5 * rng.normal(size=30) > 0).astype(np.float64)

    def solved(w):
        theta = np.zeros(3)
        for _ in range(50):
            p = 1 / (1 + np.exp(-X @ theta))
            H = X.T @ ((w * p * (1 - p))[:, None] * X) / len(X) + decay * np.eye(3)
            theta -= np.linalg.solve(H, X.T @ (w * (p - y)) / len(X) + decay * theta)
        return theta

    class Logistic(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.as_tensor(solved(np.ones(30))))

        def forward(self, x):
            return x @ self.weight

    net = NeuralNetRegressor(  # already there
        Logistic, criterion=nn.BCEWithLogitsLoss, lr=1e-12, max_epochs=1, optimizer__weight_decay=decay,
        train_split=None, verbose=0,
    ).fit(X, y)  # fmt: skip
    method = InfluenceFunctions(damping=0.0, measurement="prediction").fit(net, X, y)
    errors, odd = {}, int(np.argmin((2 * y - 1) * (X @ solved(np.ones(30)))))
    for weight in (0.0, 2.0, 300.0):
        w = np.ones(30)
        w[odd] = weight
        expected = X @ (solved(w) - solved(np.ones(30)))
        for step in ("damped", "full"):
            change = method.predict_reweighting(X, weights=w, renormalize=False, step=step)[:, 0]
            errors[weight, step] = relative(change, expected)
    assert errors[0.0, "damped"] == errors[0.0, "full"] < 0.1, errors
    assert errors[2.0, "damped"] < 0.1, errors
    assert errors[300.0, "damped"] < 0.2, errors


def test_some_rows_stand_for_those_that_weigh_alike(deep, monkeypatch):
    net, X, y, X_query = deep
    weights = np.ones((2, len(X)))
    weights[0, 3:6], weights[1, 9:12] = 0.0, [0.0, 0.0, 8.0]
    seen = []
    monkeypatch.setattr(_damped_step, "_ALIKE", 5)
    whole = _damped_step.ProximalLoss._batch
    monkeypatch.setattr(
        _damped_step.ProximalLoss, "_batch", lambda self, *given: [seen.append(len(given[1])), whole(self, *given)][1]
    )
    method = InfluenceFunctions(damping=DAMPING, curvature=EKFAC(fisher="exact")).fit(net, X, y)
    some = method.predict_reweighting(X_query, weights=weights)
    assert set(seen) == {6 + 5}
    monkeypatch.setattr(_damped_step, "_ALIKE", 1024)
    assert relative(method.predict_reweighting(X_query, weights=weights), some) < 0.5
    assert set(seen) == {6 + 5, len(X)}


def test_changes_beyond_any_linearisation_are_said(deep):
    net, X, y, X_query = deep
    method = InfluenceFunctions(damping=1e-7).fit(net, X, y)
    before = {name: value.clone() for name, value in net.module_.state_dict().items()}
    with pytest.warns(UserWarning, match=r"as far as 1 of 2 changes \(number 1\) would move it: steps were damped up"):
        change = method.predict_reweighting(X_query, weights=np.where(np.arange(16) == [[-1], [3]], 50.0, 1.0))
    assert np.isfinite(change).all()
    assert (change[:, 0] == 0).all()
    assert all(torch.equal(value, before[name]) for name, value in net.module_.state_dict().items())


def test_a_step_of_another_name_is_refused(deep):
    net, X, y, X_query = deep
    for method in (TracIn().fit(net, X, y), InfluenceFunctions(damping=0.1).fit(net, X, y)):
        for ask in (
            lambda m: m.predict_reweighting(X_query, groups=[[0]], step="half"),
            lambda m: m.predict_relabeling(X_query, y_train=(y + 1) % 3, step="half"),
            lambda m: predict_action(m, "remove", [0], X_query, step="half"),
        ):
            with pytest.raises(ValueError, match=r"expected step to be one of \('damped', 'full'\), got 'half'"):
                ask(method)


def test_predict_action_takes_the_step(deep):
    net, X, y, X_query = deep
    method = InfluenceFunctions(damping=DAMPING).fit(net, X, y)
    rows = [1, 4, 5, 9, 10]
    for step in ("damped", "full"):
        effect = predict_action(method, "remove", rows, X_query, step=step)
        expected = method.predict_reweighting(X_query, groups=[rows], step=step)[:, 0]
        np.testing.assert_allclose(effect.change, expected, rtol=1e-12)
