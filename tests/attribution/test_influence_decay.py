"""Weight decay in influence functions: converged trainings against closed forms and finite differences."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pytest
import torch
from skorch import NeuralNetRegressor
from torch import nn

from sklearn_source import InfluenceFunctions, TrajectoryRecorder
from tests._methods import joint
from tests.attribution._runs import relative

ROWS, STEP, DECAY = [0, 3], 1e-4, 0.2
QUIET = {f"callbacks__{name}": None for name in ("print_log", "epoch_timer", "train_loss", "valid_loss")}
NO_BIAS = [("bias", {"weight_decay": 0.0})]


def problem(centred=True):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(16, 4)) * np.array([2, 1, 0.5, 0.2])
    X = X - X.mean(0) + (0.0 if centred else 0.4)
    y = X @ rng.normal(size=(4, 1)) + 0.5 * rng.normal(size=(16, 1)) + 0.7
    return X, y, rng.normal(size=(3, 4))


class WeightedRows(NeuralNetRegressor):
    """Targets carry the weight of the row in a last column, so that a row can be made to count a little less."""

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        target, weight = (y_true[:, :1], y_true[:, 1:]) if y_true.shape[1] > 1 else (y_true, 1.0)
        return (weight * (y_pred - target) ** 2).mean()


def trained(X, y, recorded=True, **options):
    torch.manual_seed(0)
    callbacks = [TrajectoryRecorder(n_checkpoints=2)] if recorded else []
    settings = {"lr": 0.1, "max_epochs": 400, "batch_size": -1, "optimizer__weight_decay": DECAY, "train_split": None}
    module = nn.Linear(4, 1, dtype=torch.float64)
    return WeightedRows(module, verbose=0, callbacks=callbacks, **QUIET, **{**settings, **options}).fit(X, y)


def differences(X, y, X_query, **options):
    """(n_query, ROWS) effect of each row's weight, by training again with a little more and a little less of it."""
    effects = []
    for row in ROWS:
        outputs = []
        for change in (STEP, -STEP):
            weights = np.ones(len(X))
            weights[row] += change
            outputs.append(trained(X, np.c_[y, weights], recorded=False, **options).predict(X_query)[:, 0])
        effects.append((outputs[0] - outputs[1]) / (2 * STEP))
    return np.array(effects).T


def closed_form(X, y, X_query, decays):
    """Scores of a ridge regression whose weights, and whose bias last, have these decays."""
    X, X_query = (np.c_[values, np.ones(len(values))] for values in (X, X_query))
    H = 2 / len(X) * X.T @ X + np.diag(decays)
    weights = np.linalg.solve(H, 2 / len(X) * X.T @ y)
    return 2 / len(X) * X_query @ np.linalg.solve(H, X.T) * (y - X @ weights)[:, 0]


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "unrecorded"])
@pytest.mark.parametrize("without_bias", [False, True])
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_a_converged_ridge_regression(optimizer, without_bias, recorded):
    X, y, X_query = problem(centred=False)
    options = {"optimizer": getattr(torch.optim, optimizer), "max_epochs": 1000 if optimizer == "Adam" else 600}
    if without_bias:
        options["optimizer__param_groups"] = NO_BIAS
    net = trained(X, y, recorded, **options)
    expected = closed_form(X, y, X_query, [DECAY] * 4 + [0.0 if without_bias else DECAY])
    for curvature in ("exact", joint()):
        method = InfluenceFunctions(curvature=curvature, damping=0.0)
        assert relative(method.fit(net, X, y).transform(X_query), expected) < 1e-4
    damped = InfluenceFunctions(curvature="exact", damping=0.3).fit(net, X, y).transform(X_query)
    assert relative(damped, expected) > 0.05  # damping comes on top
    if optimizer == "SGD" and not without_bias and recorded:
        truth = differences(X, y, X_query, **options)
        assert relative(expected[:, ROWS], truth) < 1e-4
        assert set(method.damping_.values()) == {0.0}


@pytest.mark.parametrize("without_bias", [False, True])
def test_block_diagonal_curvatures_are_the_same_matrix_where_weight_and_bias_are_uncoupled(without_bias):
    X, y, X_query = problem()
    net = trained(X, y, **({"optimizer__param_groups": NO_BIAS} if without_bias else {}))
    expected = closed_form(X, y, X_query, [DECAY] * 4 + [0.0 if without_bias else DECAY])
    for curvature in ("ekfac", "kfac"):
        method = InfluenceFunctions(curvature=curvature, damping=0.0).fit(net, X, y)
        assert relative(method.transform(X_query), expected) < 1e-5
        assert len(method.damping_) == 1 + without_bias


def adamw(without_bias):
    """Options of a training whose steps are large beside its gradients."""
    options = {
        "optimizer": torch.optim.AdamW, "optimizer__eps": 10.0, "lr": 1.0, "max_epochs": 300,
        "optimizer__weight_decay": 0.05,
    }  # fmt: skip
    if without_bias:
        options["optimizer__param_groups"] = [("bias", {"weight_decay": 0.0, "eps": 3.0})]
    return options


@functools.cache
def adamw_truth(without_bias):
    return differences(*problem(), **adamw(without_bias))


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "unrecorded"])
@pytest.mark.parametrize("without_bias", [False, True])
def test_a_converged_adamw_is_what_training_again_gives(without_bias, recorded):
    """With steps this large beside its gradients P hardly responds to a row: taking it as given is right to 2 %."""
    X, y, X_query = problem()
    net = trained(X, y, recorded, **adamw(without_bias))
    truth = adamw_truth(without_bias)
    for curvature in ("exact", "ekfac", joint()):
        method = InfluenceFunctions(curvature=curvature, damping=0.0).fit(net, X, y)
        assert relative(method.transform(X_query)[:, ROWS], truth) < 0.02
    as_if_coupled = closed_form(X, y, X_query, [0.05] * 5)[:, ROWS]
    assert relative(as_if_coupled, truth) > 0.5


def test_the_decay_of_the_last_stage_counts():
    X, y, X_query = problem()
    net = trained(X, y, optimizer__weight_decay=2.0, max_epochs=20)
    net.set_params(optimizer__weight_decay=DECAY, max_epochs=400).partial_fit(X, y)
    found = InfluenceFunctions(damping=0.0).fit(net, X, y).transform(X_query)
    assert relative(found, closed_form(X, y, X_query, [DECAY] * 5)) < 1e-5


def test_a_rate_that_ended_at_zero_hides_no_decay():
    X, y, X_query = problem()
    net = trained(X, y, recorded=False)
    net.optimizer_.param_groups[0]["lr"] = 0.0
    found = InfluenceFunctions(damping=0.0).fit(net, X, y).transform(X_query)
    assert relative(found, closed_form(X, y, X_query, [DECAY] * 5)) < 1e-5


def test_a_mean_eigenvalue_is_that_of_the_rows_alone():
    X, y, _ = problem()
    settings = {"max_epochs": 3, "optimizer": torch.optim.AdamW}
    for curvature in ("ekfac", "exact"):
        method = InfluenceFunctions(curvature=curvature, damping="mean_eigenvalue")
        nets = [trained(X, y, optimizer__weight_decay=decay, **settings) for decay in (0.0, 5.0)]
        without, with_decay = (method.fit(net, X, y).damping_ for net in nets)
        assert with_decay == pytest.approx(without, rel=1e-9)


def test_decay_through_an_unknown_preconditioner_is_said():
    X, y, X_query = problem()
    net = trained(X, y, recorded=False, optimizer=torch.optim.AdamW, max_epochs=3)
    net.optimizer_.state.clear()  # as after load_params
    with pytest.warns(UserWarning, match="the weight decay of AdamW is no part of the curvature"):
        found = InfluenceFunctions(damping=0.1).fit(net, X, y).transform(X_query)
    net.optimizer_.param_groups[0]["weight_decay"] = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        np.testing.assert_array_equal(InfluenceFunctions(damping=0.1).fit(net, X, y).transform(X_query), found)
    adam = trained(X, y, recorded=False, optimizer=torch.optim.Adam, max_epochs=1000)
    adam.optimizer_.state.clear()  # its decay enters the gradient, whatever the preconditioner
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found = InfluenceFunctions(damping=0.0).fit(adam, X, y).transform(X_query)
    assert relative(found, closed_form(X, y, X_query, [DECAY] * 5)) < 1e-4
