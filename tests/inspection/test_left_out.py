"""Leaving groups out in closed form, against regressions fitted without them; the tangent kernel, against autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn
from torch.func import functional_call, jacrev, vmap

from sklearn_source.inspection import _tangent_kernel
from sklearn_source.inspection._left_out import LeftOut
from sklearn_source.inspection._tangent_kernel import TangentKernel, tangent_kernel

SHARE = 1e-2


def made_kernel(seed=0, n=14, n_query=5, n_outputs=2):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n + n_query, 6))
    gram = features @ features.T / n
    return TangentKernel(
        gram[:n, :n], gram[n:, :n], rng.normal(size=(n, n_outputs)), rng.normal(size=(n_query, n_outputs))
    )


def ridge_without(kernel, rows):
    """Predictions for all rows and for the queries by a ridge regression that never saw some rows."""
    n = len(kernel.training)
    kept = np.setdiff1d(np.arange(n), rows)
    mean = kernel.targets.mean(axis=0)  # as in LeftOut: that of all rows
    ridge = SHARE * np.trace(kernel.training)
    gram = kernel.training[np.ix_(kept, kept)] + ridge * np.eye(len(kept))
    dual = np.linalg.solve(gram, kernel.targets[kept] - mean)
    return mean + kernel.training[:, kept] @ dual, mean + kernel.queries[:, kept] @ dual


@settings(max_examples=25, deadline=None)
@given(hnp.arrays(bool, 14).filter(lambda chosen: 0 < chosen.sum() < 13), st.integers(0, 1000))
def test_a_group_left_out_is_a_regression_without_it(chosen, seed):
    kernel, rows = made_kernel(seed), np.flatnonzero(chosen)
    left_out = LeftOut(kernel, SHARE)
    all_predicted, all_queries = ridge_without(kernel, [])
    predicted, queries = ridge_without(kernel, rows)
    moved, own = left_out.moved(rows)
    np.testing.assert_allclose(moved, all_queries - queries, atol=1e-9)
    np.testing.assert_allclose(own, kernel.targets[rows] - predicted[rows], atol=1e-9)
    everyone = left_out.all_residuals(rows)
    np.testing.assert_allclose(everyone[rows], own, atol=1e-9)
    for i in np.setdiff1d(np.arange(14), rows)[:3]:
        without, _ = ridge_without(kernel, [*rows, i])
        np.testing.assert_allclose(everyone[i], kernel.targets[i] - without[i], atol=1e-8)
        np.testing.assert_allclose(left_out.lone_residuals[i], kernel.targets[i] - ridge_without(kernel, [i])[0][i])


def test_weights_stand_for_queries_that_are_there_more_often():
    kernel = made_kernel()
    often = np.array([0, 1, 1, 1, 2, 3, 4, 4])
    repeated = TangentKernel(kernel.training, kernel.queries[often], kernel.targets, kernel.errors[often])
    whole, weighed = LeftOut(repeated, SHARE), LeftOut(kernel, SHARE, np.bincount(often).astype(float))
    rows = np.array([1, 4, 7])

    def gain(left_out, errors):
        moved, errors = left_out.moved(rows)[0], left_out.weighed(errors)
        return (errors**2).sum() - ((errors + moved) ** 2).sum()

    assert gain(whole, repeated.errors) == pytest.approx(gain(weighed, kernel.errors))


def test_likeness_is_a_cosine():
    likeness = LeftOut(made_kernel(), SHARE).likeness
    np.testing.assert_allclose(np.diag(likeness), 1, atol=1e-6)
    assert np.abs(likeness).max() <= 1 + 1e-6
    twins = made_kernel()
    gram = np.kron(twins.training, np.ones((2, 2)))
    held = LeftOut(TangentKernel(gram, gram[:3], np.repeat(twins.targets, 2, axis=0), twins.errors[:3]), SHARE)
    np.testing.assert_allclose(held.likeness[::2, 1::2].diagonal(), 1, atol=1e-5)


class Probabilities(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3), nn.Softmax(1))

    def forward(self, x):
        return self.layers(x)


def trained(kind):
    """A small network on 20 rows, what its Jacobian is of, targets and what is predicted."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20, 4)).astype(np.float32)
    torch.manual_seed(0)
    common = {"train_split": None, "verbose": 0, "max_epochs": 3, "lr": 0.05}
    if kind == "regression":
        net = NeuralNetRegressor(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)), **common)
        y = rng.normal(size=(20, 2)).astype(np.float32)
        return net.fit(X, y), X, y, y, lambda out: out, lambda net: net.predict(X)
    if kind == "binary":
        net = NeuralNetBinaryClassifier(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)), **common)
        y = rng.integers(2, size=20).astype(np.float32)
        return net.fit(X, y), X, y, y[:, None], lambda out: out, lambda net: net.predict_proba(X)[:, 1:]
    y = rng.integers(3, size=20)
    if kind == "classes":
        module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
        net = NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, **common)
        return net.fit(X, y), X, y, np.eye(3)[y], lambda out: out, lambda net: net.predict_proba(X)
    net = NeuralNetClassifier(Probabilities, **common)  # NLLLoss of skorch takes probabilities
    return net.fit(X, y), X, y, np.eye(3)[y], torch.log, lambda net: net.predict_proba(X)


@pytest.mark.parametrize("kind", ["regression", "binary", "classes", "probabilities"])
def test_kernel_is_that_of_the_jacobian(kind):
    net, X, y, targets, free, predict = trained(kind)
    state, random = {k: v.clone() for k, v in net.module_.state_dict().items()}, torch.random.get_rng_state()
    kernel = tangent_kernel(net, X[:15], y[:15], X[15:], y[15:])
    assert torch.equal(random, torch.random.get_rng_state())
    parameters = {name: value.detach() for name, value in net.module_.named_parameters()}
    jacobian = vmap(jacrev(lambda p, x: free(functional_call(net.module_, p, (x[None],))[0])), (None, 0))(
        parameters, torch.as_tensor(X)
    )
    jacobian = torch.cat([part.flatten(2) for part in jacobian.values()], dim=2).numpy()
    expected = np.einsum("icp,jcp->ij", jacobian, jacobian) / jacobian.shape[1] / 15
    np.testing.assert_allclose(kernel.training, expected[:15, :15], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(kernel.queries, expected[15:, :15], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(kernel.targets, targets[:15], atol=1e-6)
    np.testing.assert_allclose(kernel.errors, (targets - predict(net))[15:], atol=1e-5)
    assert all(torch.equal(value, state[name]) for name, value in net.module_.state_dict().items())


def test_wide_networks_are_projected_and_many_outputs_mixed(monkeypatch):
    net, X, y, *_ = trained("classes")
    whole = tangent_kernel(net, X[:15], y[:15], X[15:], y[15:])
    means = []
    for name, value, tolerance in (("_WIDTH", 40, 0.7), ("_MOST_DIRECTIONS", 2, 1.0)):
        with monkeypatch.context() as patch:
            patch.setattr(_tangent_kernel, name, value)
            other = tangent_kernel(net, X[:15], y[:15], X[15:], y[15:])
        means.append(np.linalg.norm(other.training - whole.training) / np.linalg.norm(whole.training))
        assert 1e-6 < means[-1] < tolerance
        np.testing.assert_array_equal(other.errors, whole.errors)


def test_other_losses_have_no_kernel():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(12, 4)).astype(np.float32)
    counts = NeuralNetRegressor(nn.Linear(4, 1), criterion=nn.PoissonNLLLoss, train_split=None, verbose=0, max_epochs=1)
    y = rng.poisson(2, size=(12, 1)).astype(np.float32)
    assert tangent_kernel(counts.fit(X, y), X, y, X[:3], y[:3]) is None
