"""The bases of methods: abstract, complete, and enough to write a method on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from skorch import NeuralNetClassifier, NeuralNetRegressor

from sklearn_source import RepresentationSimilarity, Trajectory
from sklearn_source.base import (
    BaseAttribution,
    FeatureAttribution,
    GradientAttribution,
    NetworkAttribution,
    RowGradients,
    flat_gradients,
)
from sklearn_source.loss import resolve_measurement
from sklearn_source.modules import MLP
from sklearn_source.network import Network
from sklearn_source.utils.estimator_checks import check_attribution_estimator, parametrize_with_attribution_checks
from tests._nets import make_net


class KernelRegression(FeatureAttribution):
    """TRAK without projection or weights: gradients of the measurement, and a ridge regression on them."""

    fit_depends_on_measurement = True

    def __init__(self, net=None, *, ridge=0.1, measurement="auto", output=None, batch_size=None, random_state=None,
                 verbose=0):  # fmt: skip
        self.net = net
        self.ridge = ridge
        self.measurement = measurement
        self.output = output
        self.batch_size = batch_size
        self.random_state = random_state
        self.verbose = verbose

    def _begin_features(self):
        self._gradients = RowGradients(self._network, self._rows, batch_size=self.batch_size)

    def _features(self, rows, index, measure):
        x, y = rows.batch(index)
        return flat_gradients(self._gradients.of_measurement(x, y, measure))

    def _fit_features(self, features):
        gram = (features.T @ features).double()
        gram += self.ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        return torch.linalg.solve(gram, features.T.double()).T.to(features.dtype)


class Silent(KernelRegression):
    """Does not say that its fit depends on the measurement."""

    fit_depends_on_measurement = False


@pytest.mark.parametrize("base", [BaseAttribution, NetworkAttribution, GradientAttribution, FeatureAttribution])
def test_a_base_alone_is_no_method(base):
    class Empty(base):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Empty()


@parametrize_with_attribution_checks([KernelRegression()])
def test_a_method_on_features_passes_the_checks(estimator, check):
    check(estimator)


def test_a_method_on_features_by_hand(data):
    X, y = data
    net = make_net(module__hidden=(5,)).fit(X, y)
    method = KernelRegression(batch_size=7).fit(net, X, y)
    module = net.module_.double()
    queries, rows = ([_gradient(module, x, lambda out: out.sum()) for x in X[:k]] for k in (3, len(X)))
    queries, rows = np.array(queries), np.array(rows)
    gram = rows.T @ rows
    gram += 0.1 * np.trace(gram) / len(gram) * np.eye(len(gram))
    expected = queries @ np.linalg.solve(gram, rows.T)
    np.testing.assert_allclose(method.transform(X[:3]), expected, atol=2e-4 * np.abs(expected).max())


def test_gradients_of_single_rows(data):
    """Of the loss and of a measurement, at the trained weights and at a checkpoint, against autograd row by row."""
    X, y = data
    net = make_net(module__hidden=(5,)).fit(X, y)
    network = Network.from_net(net)
    rows = network.prepare(X, y)
    network.calibrate(rows)
    gradients = RowGradients(network, rows)
    first = Trajectory.from_net(net).checkpoints[0]
    index = np.array([4, 1, 11])
    for state, values in ((None, net.module_.state_dict()), (gradients.state(first), first.parameters)):
        module = MLP(n_features=X.shape[1], hidden=(5,))
        module.load_state_dict(dict(values))
        of_loss = flat_gradients(gradients.of_loss(*rows.batch(index), state))
        expected = [
            _gradient(module, X[i], lambda out, i=i: (out - torch.as_tensor(y[i])).square().mean()) for i in index
        ]
        np.testing.assert_allclose(_sorted(of_loss), _sorted(expected), rtol=1e-4, atol=1e-6)
        measure = resolve_measurement("prediction", network)
        of_output = flat_gradients(gradients.of_measurement(*rows.batch(index), measure, state))
        expected = [_gradient(module, X[i], lambda out: out.sum()) for i in index]
        np.testing.assert_allclose(_sorted(of_output), _sorted(expected), rtol=1e-4, atol=1e-6)


def test_gradients_within_a_walk(data):
    """Hooks are put on once, however deep one context of an engine stands in another."""
    X, y = data
    network = Network.from_net(make_net(module__hidden=(5,)).fit(X, y))
    rows = network.prepare(X, y)
    network.calibrate(rows)
    gradients = RowGradients(network, rows)
    alone = flat_gradients(gradients.of_loss(*rows.batch(np.arange(3))))
    with gradients.engine.attached():
        inside = flat_gradients(gradients.of_loss(*rows.batch(np.arange(3))))
        again = flat_gradients(gradients.of_loss(*rows.batch(np.arange(3))))
    assert torch.equal(alone, inside)
    assert torch.equal(alone, again)
    assert not any(module._forward_hooks for module in network.module.modules())


def test_self_influence_of_a_fit_that_depends_on_the_measurement():
    """The check compares like with like where a class says so, and finds a class that does not say it."""
    results = check_attribution_estimator(Silent(), tasks=["classification"], on_fail=None)
    assert {r["check_name"] for r in results if r["status"] == "failed"} == {"check_attribution_self_influence"}


def test_names_of_methods_are_found_by_their_base(data):
    X, y = data
    net = make_net().fit(X, y)
    assert isinstance(RepresentationSimilarity().fit(net, X, y), FeatureAttribution)
    assert issubclass(FeatureAttribution, (BaseEstimator, TransformerMixin))


def _gradient(module, row, function):
    """The gradient of a function of one row's output in all parameters, flat, in float64."""
    row = torch.as_tensor(row[None]).to(next(module.parameters()).dtype)
    parts = torch.autograd.grad(function(module(row)), list(module.parameters()))
    return np.concatenate([part.numpy().ravel() for part in parts]).astype(np.float64)


def _sorted(rows):
    """Rows with their numbers in order: blocks are laid out otherwise than parameters."""
    return np.sort(np.array([np.asarray(row) for row in rows], dtype=np.float64), axis=1)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(24, 3)).astype(np.float32)
    return X, (X[:, :1] - X[:, 1:2] + 0.1 * rng.normal(size=(24, 1))).astype(np.float32)


@pytest.mark.parametrize("cls", [NeuralNetRegressor, NeuralNetClassifier])
def test_fit_transform_takes_targets_where_the_measurement_needs_them(cls, data):
    X, y = data
    options = {} if cls is NeuralNetRegressor else {"module__n_outputs": 2, "criterion": torch.nn.CrossEntropyLoss}
    y = y if cls is NeuralNetRegressor else (y[:, 0] > 0).astype(np.int64)
    net = make_net(cls, **options).fit(X, y)
    for measurement in ("auto", "neg_loss"):
        method = KernelRegression(measurement=measurement)
        scores = method.fit_transform(net, X, y)
        needed = measurement == "neg_loss" and cls is NeuralNetRegressor
        np.testing.assert_array_equal(scores, method.transform(X, y if needed else None))
