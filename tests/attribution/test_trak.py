"""TRAK against a dense float64 regression, explicit leave-one-out refits and least squares in closed form."""

from __future__ import annotations

import warnings

import joblib
import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from skorch import NeuralNet, NeuralNetRegressor
from torch import nn

from sklearn_source import TRAK, TrajectoryRecorder, config_context
from sklearn_source.attribution import _ridge
from sklearn_source.attribution._ridge import Ridge, leave_one_out_regularization
from tests._nets import make_net
from tests.attribution._runs import STEPS, TOLERANCE, as_double, relative
from tests.reference import row_gradients

KINDS = pytest.mark.parametrize("kind", ["mlp", "regressor", "conv"])
HYPER = {"momentum": 0.5, "weight_decay": 0.02}


class Dense:
    """One checkpoint of a run: features, residuals, second derivatives and measurements, written out."""

    def __init__(self, run, step):
        X, y = run.rows
        params = run.params(step)
        self.Phi = row_gradients(run.module64, params, run.measurement(), X, y)[0]
        self.queries = run.queries(step, run.measurement(), run.query_target())
        with torch.no_grad():
            output = torch.func.functional_call(run.module64, params, X)
        if run.classes:
            p = output.softmax(1)[torch.arange(len(X)), y]
            self.f, self.Q, self.r = torch.logit(p), 1 - p, p * (1 - p)
        else:
            self.f, self.Q, self.r = output[:, 0], 2 * (y - output)[:, 0], torch.full((len(X),), 2.0).double()

    def factor(self, regularization, columns=slice(None)):
        Phi, queries = self.Phi[:, columns], self.queries[:, columns]
        gram = Phi.T @ Phi + regularization * torch.eye(Phi.shape[1], dtype=Phi.dtype)
        return queries @ torch.linalg.solve(gram, Phi.T)

    def left_out(self, regularization):
        """Predictions of every row by a regression on the others, each solved by itself."""
        z, predicted = self.f + self.Q / self.r.mean(), []
        for m in range(len(z)):
            others = torch.arange(len(z)) != m
            Phi = self.Phi[others]
            gram = Phi.T @ Phi + regularization * torch.eye(Phi.shape[1], dtype=Phi.dtype)
            predicted.append(self.Phi[m] @ torch.linalg.solve(gram, Phi.T @ z[others]))
        return torch.stack(predicted)

    def error(self, regularization):
        return float((self.left_out(regularization) - self.f).square().sum())


@KINDS
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_without_projection(kind, dtype, run):
    r = run(kind, dtype, **HYPER)
    dense = Dense(r, STEPS)
    method = TRAK(n_components=None, regularization=0.3).fit(r.net, r.X, r.y)
    assert relative(method.transform(r.X_query), dense.factor(0.3) * dense.Q) < TOLERANCE[dtype]
    assert relative(method.residuals_, dense.Q) < TOLERANCE[dtype]
    assert method.regularization_.tolist() == [[0.3]]


@KINDS
@pytest.mark.parametrize(("n_checkpoints", "steps"), [(2, (24, 12)), (3, (24, 16, 8)), (None, (24, 20, 16, 12, 8, 4))])
def test_several_checkpoints(kind, n_checkpoints, steps, run):
    r = run(kind, **HYPER)
    dense = [Dense(r, step) for step in steps]
    expected = sum(d.factor(0.3) for d in dense) / len(dense) * sum(d.Q for d in dense) / len(dense)
    method = TRAK(n_components=10_000, regularization=0.3, n_checkpoints=n_checkpoints).fit(r.net, r.X, r.y)
    assert relative(method.transform(r.X_query), expected) < TOLERANCE["float64"]


def test_blocks_are_inverted_apart(run):
    r = run("mlp", **HYPER)
    dense = Dense(r, STEPS)
    network = TRAK(n_components=None).fit(r.net, r.X, r.y)
    assert network.regularization_.shape == (1, 1)
    size = dense.Phi.shape[1]
    halves = TRAK(n_components=None, regularization=0.3, block_size=-(-size // 2)).fit(r.net, r.X, r.y)
    order = _order_of(halves, r)
    expected = sum(dense.factor(0.3, part) for part in (order[: size // 2], order[size // 2 :])) / 2 * dense.Q
    assert relative(halves.transform(r.X_query), expected) < TOLERANCE["float64"]
    chosen = TRAK(n_components=None, block_size=7).fit(r.net, r.X, r.y).regularization_
    assert chosen.shape == (1, -(-size // 7))
    assert len(np.unique(chosen)) > 1


def _order_of(method, r):
    """Where the features of a method without projection stand in the reference's vectors."""
    network = method._network.prepare(r.X, r.y)
    found = method._training_row_features(network, np.arange(len(r.X)))[:, :-3]
    distances = (found.T[:, None] - Dense(r, STEPS).Phi.T).abs().amax(2)
    assert float(distances.min(1).values.max()) < 1e-10
    return distances.argmin(1)


# --- the choice of lambda -------------------------------------------------------------------------------------------


@KINDS
def test_predictions_without_a_row_are_those_of_explicit_refits(kind, run):
    dense = Dense(run(kind, **HYPER), STEPS)
    regularizations = [1e-3, 0.3, 5.0]
    z = dense.f + dense.Q / dense.r.mean()
    found = Ridge(dense.Phi).left_out(z, regularizations)
    expected = torch.stack([dense.left_out(value) for value in regularizations], dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


@KINDS
def test_lambda_is_the_minimum_over_explicit_refits(kind, run):
    r = run(kind, **HYPER)
    dense = Dense(r, STEPS)
    found = float(TRAK(n_components=None).fit(r.net, r.X, r.y).regularization_[0, 0])
    powers = np.linspace(-6, 4, 101)
    errors = [dense.error(10.0**power) for power in powers]
    around = powers[np.argmin(errors)]
    best = minimize_scalar(lambda power: dense.error(10.0**power), bounds=(around - 0.1, around + 0.1)).x
    assert np.log10(found) == pytest.approx(best, abs=1e-3)


def test_rows_in_chunks_and_ridges_of_either_side(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    for n, k in ((9, 4), (4, 9)):
        X = torch.randn(n, k, generator=generator, dtype=torch.float64)
        z = torch.randn(n, generator=generator, dtype=torch.float64)
        expected = X @ torch.linalg.inv(X.T @ X + 0.2 * torch.eye(k, dtype=X.dtype))
        torch.testing.assert_close(Ridge(X).smoother(0.2), expected)
        torch.testing.assert_close(Ridge(X).smoother(0.0), torch.linalg.pinv(X).T)
        whole = Ridge(X).left_out(z, [0.2, 3.0])
        monkeypatch.setattr(_ridge, "_ROWS", 2)
        for budget in (2**31, 1):  # coordinates held, and formed at each use
            with config_context(memory_budget=budget):
                ridge = Ridge(X)
            torch.testing.assert_close(ridge.smoother(0.2), expected)
            torch.testing.assert_close(ridge.left_out(z, [0.2, 3.0]), whole)
            errors = ridge.left_out_errors(z, 2 * z, [0.2, 3.0])
            torch.testing.assert_close(errors, (whole - 2 * z[:, None]).square().mean(0))
        monkeypatch.undo()


def test_nothing_to_regularize():
    zeros = torch.zeros(5, 3)
    ridge = Ridge(zeros)
    assert leave_one_out_regularization(ridge, torch.ones(5).double(), torch.ones(5).double()) == 0
    assert not ridge.smoother(0.0).any()


def test_a_target_that_says_nothing_gets_much_regularization():
    """Noise is best predicted by zero, a linear function of the features without regularization."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(60, 20, generator=generator, dtype=torch.float64)
    mean = float(Ridge(X).eigenvalues.mean())
    noise = torch.randn(60, generator=generator, dtype=torch.float64)
    assert leave_one_out_regularization(Ridge(X), noise, 0 * noise) > 1e5 * mean
    linear = X @ torch.randn(20, generator=generator, dtype=torch.float64)
    assert leave_one_out_regularization(Ridge(X), linear, linear) < 1e-5 * mean


# --- meaning --------------------------------------------------------------------------------------------------------


def test_least_squares_is_the_hat_matrix_formula():
    """Without regularization a linear model's scores are twice what removal does, less the leverage: unit and sign."""
    rng = np.random.default_rng(0)
    X, X_query = rng.normal(size=(30, 4)), rng.normal(size=(5, 4))
    y = X @ rng.normal(size=(4, 1)) + rng.normal(size=(30, 1))
    net = NeuralNetRegressor(
        nn.Linear, module__in_features=4, module__out_features=1, module__bias=False, module__dtype=torch.float64,
        train_split=None, verbose=0, max_epochs=0,
    ).fit(X, y)  # fmt: skip
    weights = np.linalg.lstsq(X, y, rcond=None)[0]
    with torch.no_grad():
        net.module_.weight.copy_(torch.from_numpy(weights.T))
    scores = TRAK(regularization=0.0).fit(net, X, y).transform(X_query)
    leverage = np.einsum("ni,ij,nj->n", X, np.linalg.inv(X.T @ X), X)
    for m in (0, 7):
        keep = np.arange(30) != m
        without = np.linalg.lstsq(X[keep], y[keep], rcond=None)[0]
        removal = (X_query @ weights - X_query @ without)[:, 0]
        np.testing.assert_allclose(scores[:, m], 2 * (1 - leverage[m]) * removal, rtol=1e-5)


def test_residuals_of_others(run):
    """The mean over members that all have the mean residuals is the paper's: each factor's mean by itself."""
    r, other = run("mlp", **HYPER), run("mlp", momentum=0.0)
    options = {"n_components": None, "regularization": 0.3}
    members = [TRAK(**options).fit(each.net, r.X, r.y) for each in (r, other)]
    before = members[0].transform(r.X_query, r.y_query)
    mean = np.mean([member.residuals_ for member in members], axis=0)
    shared = [member.with_residuals(mean) for member in members]
    found = np.mean([member.transform(r.X_query, r.y_query) for member in shared], axis=0)
    dense = [Dense(each, STEPS) for each in (r, other)]
    for each, d in zip((r, other), dense):
        d.queries = each.queries(STEPS, each.measurement(), as_double(r.y_query))
    expected = sum(d.factor(0.3) for d in dense) / 2 * sum(d.Q for d in dense) / 2
    assert relative(found, expected) < 1e-6
    np.testing.assert_array_equal(members[0].transform(r.X_query, r.y_query), before)
    with pytest.raises(ValueError, match=r"expected residuals of shape \(12,\), one per training row, got \(3,\)"):
        members[0].with_residuals(mean[:3])


# --- projections ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("projection", ["sjlt", "rademacher", "kronecker", "mask"])
def test_seeds_and_batches(projection, run):
    r = run("mlp", "float32", **HYPER)
    options = {"projection": projection, "n_components": 12, "n_checkpoints": 2}
    first = TRAK(random_state=0, **options).fit(r.net, r.X, r.y)
    expected = first.transform(r.X_query)
    again = TRAK(random_state=0, batch_size=5, **options).fit(r.net, r.X, r.y)
    assert relative(again.transform(r.X_query), expected) < 1e-5
    assert relative(np.concatenate([again.transform(x[None]) for x in r.X_query]), expected) < 1e-5
    assert relative(TRAK(random_state=1, **options).fit(r.net, r.X, r.y).transform(r.X_query), expected) > 0.01


def test_pickled_with_its_projection(run, tmp_path):
    r = run("mlp", **HYPER)
    method = TRAK(n_components=9).fit(r.net, r.X, r.y)  # fresh entropy
    joblib.dump(method, tmp_path / "trak.joblib")
    again = joblib.load(tmp_path / "trak.joblib")
    np.testing.assert_array_equal(again.transform(r.X_query), method.transform(r.X_query))
    np.testing.assert_array_equal(again.self_influence(), method.self_influence())


@pytest.mark.parametrize("projection", ["sjlt", "rademacher", "kronecker", "mask"])
def test_wide_projections_come_near_the_whole(projection, run):
    r = run("mlp", **HYPER)
    dense = Dense(r, STEPS)
    expected, size = dense.factor(2.0) * dense.Q, dense.Phi.shape[1]
    errors = []
    for n_components in (size // 4, size - 1):
        options = {"projection": projection, "n_components": n_components, "regularization": 2.0}
        found = [TRAK(random_state=s, **options).fit(r.net, r.X, r.y).transform(r.X_query) for s in range(4)]
        errors.append(np.mean([relative(scores, expected) for scores in found]))
    assert errors[1] < min(0.75 * errors[0], 0.7)


# --- what cannot be -------------------------------------------------------------------------------------------------


def test_checkpoints_need_a_record(run):
    r = run("mlp", **HYPER)
    with pytest.raises(ValueError, match=r"expected n_checkpoints up to 6, .* got 7: train with .*n_checkpoints=7"):
        TRAK(n_checkpoints=7).fit(r.net, r.X, r.y)
    bare = make_net(callbacks=None, module__n_features=4).fit(np.float32(r.X), np.float32(r.X[:, :1]))
    with pytest.raises(ValueError, match="n_checkpoints=2 needs the record of the training"):
        TRAK(n_checkpoints=2).fit(bare, np.float32(r.X), np.float32(r.X[:, :1]))


def test_a_bare_net_gets_the_checkpoints_it_needs(run):
    r = run("mlp", **HYPER)
    bare = make_net(callbacks=None, module__n_features=4)
    method = TRAK(bare, n_checkpoints=3, random_state=0).fit(r.X.astype(np.float32), np.float32(r.X[:, :1]))
    assert method.regularization_.shape == (3, 1)


def test_targets_that_are_no_labels(run):
    r = run("mlp", **HYPER)
    soft = np.eye(3)[r.y]
    net = NeuralNet(
        nn.Linear, module__in_features=4, module__out_features=3, module__dtype=torch.float64,
        criterion=nn.CrossEntropyLoss, train_split=None, verbose=0, max_epochs=2,
    ).fit(r.X, soft)  # fmt: skip
    with pytest.raises(ValueError, match=r"own targets, and here it cannot \(.*floating-point.*: use another"):
        TRAK().fit(net, r.X, soft)
    assert TRAK(measurement="neg_loss").fit(net, r.X, soft).transform(r.X_query, np.eye(3)[r.y_query]).any()


def test_one_output_among_several(run):
    """Features and residuals are those of that output alone."""
    r = run("mlp", **HYPER)
    y = np.stack([r.X[:, 0], r.X[:, 1] ** 2], axis=1)
    net = NeuralNetRegressor(
        nn.Linear, module__in_features=4, module__out_features=2, module__dtype=torch.float64, train_split=None,
        verbose=0, max_epochs=3,
    ).fit(r.X, y)  # fmt: skip
    method = TRAK(output=1, regularization=0.2).fit(net, r.X, y)
    np.testing.assert_allclose(method.residuals_, (y - net.predict(r.X))[:, 1], rtol=1e-6)
    Phi, queries = (np.c_[X, np.ones(len(X))] for X in (r.X, r.X_query))
    expected = queries @ np.linalg.solve(Phi.T @ Phi + 0.2 * np.eye(5), Phi.T) * method.residuals_
    assert relative(method.transform(r.X_query), expected) < 1e-6
    with pytest.raises(ValueError, match="name the one to attribute"):
        TRAK().fit(net, r.X, y)


def test_no_warning_of_its_own(run):
    r = run("conv", **HYPER)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TRAK(n_checkpoints=2).fit(r.net, r.X, r.y).self_influence()


def test_residuals_are_there_after_fit():
    assert not hasattr(TRAK(), "residuals_")
    assert TRAK(TrajectoryRecorder)._recorder() is None
