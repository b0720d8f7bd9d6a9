"""Scores are in the unit of the measurement: SOURCE against actual retraining, short of convergence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch import NeuralNetRegressor
from skorch.callbacks import LRScheduler
from torch import nn

from sklearn_source import InfluenceFunctions, SourceAttribution, TracIn, TrajectoryRecorder
from tests.reference import Recipe, measure, prediction, train

N_ROWS, N_STEPS = 60, 400


def problem():
    """A linear model with features of scales 2 to 0.1: after 400 steps the slow directions have hardly moved."""
    rng = np.random.default_rng(0)
    scale = np.array([2, 1, 0.6, 0.3, 0.1])
    X, X_query = rng.normal(size=(N_ROWS, 5)) * scale, rng.normal(size=(5, 5))
    y = X @ rng.normal(size=(5, 1)) + 0.5 * rng.normal(size=(N_ROWS, 1))
    return X, y, X_query


def trained(X, y, lr, schedule=None, n_steps=N_STEPS, **options):
    """A recorded net and its initial parameters."""
    torch.manual_seed(0)
    callbacks = [TrajectoryRecorder(n_checkpoints=25)]
    if schedule is not None:
        callbacks.append(LRScheduler("LambdaLR", lr_lambda=lambda k: schedule(k / n_steps), step_every="batch"))
    module = nn.Linear(5, 1, dtype=torch.float64)
    initial = {name: p.detach().clone() for name, p in module.named_parameters()}
    net = NeuralNetRegressor(
        module, optimizer=torch.optim.SGD, lr=lr, batch_size=-1, max_epochs=n_steps, train_split=None, verbose=0,
        callbacks=callbacks, **{f"optimizer__{key}": value for key, value in options.items()},
    ).fit(X, y)  # fmt: skip
    return net, initial


def retrained(net, initial, X, y, X_query, lr, schedule=None, n_steps=N_STEPS, **options):
    """(n_query, N) effect of each row's weight going from 1 to 1 - 1e-4, 1/N kept, divided by 1e-4."""
    rates = lr if schedule is None else [lr * schedule(k / n_steps) for k in range(n_steps)]
    module = nn.Linear(5, 1, dtype=torch.float64).eval()
    X, y, X_query = (torch.from_numpy(values) for values in (X, y, X_query))
    weights = torch.ones(N_ROWS + 1, N_ROWS, dtype=torch.float64)
    weights[range(1, N_ROWS + 1), range(N_ROWS)] -= 1e-4
    recipe = Recipe(n_steps, rates, **options)
    kept = train(module, initial, nn.functional.mse_loss, X, y, recipe, weights)[n_steps]
    for name, p in net.module_.named_parameters():  # with all weights at one this is the training that was recorded
        torch.testing.assert_close(kept[name][0], p.detach())
    f = measure(module, kept, prediction(), X_query)
    return ((f[0] - f[1:]).T / 1e-4).numpy()


def errors_of(found, truth):
    return {
        "norm": float(np.linalg.norm(found - truth) / np.linalg.norm(truth)),
        "max": float(np.abs(found - truth).max() / np.abs(truth).max()),
        "slope": float((found * truth).sum() / (truth * truth).sum()),
    }


def falling(share):
    return 1.5 - share


CASES = {
    "descent": (0.01, None, {}),
    "momentum": (0.001, None, {"momentum": 0.9}),
    "decay": (0.01, None, {"weight_decay": 0.1}),
    "momentum and decay": (0.001, None, {"momentum": 0.9, "weight_decay": 0.1}),
    "dampening": (0.002, None, {"momentum": 0.9, "dampening": 0.5}),
    "nesterov": (0.001, None, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    "schedule": (0.01, falling, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_source_is_what_retraining_gives_to_half_a_percent(name, record_property):
    lr, schedule, options = CASES[name]
    X, y, X_query = problem()
    net, initial = trained(X, y, lr, schedule, **options)
    truth = retrained(net, initial, X, y, X_query, lr, schedule, **options)
    found = SourceAttribution(n_segments=25, curvature="exact").fit(net, X, y).transform(X_query)
    errors = errors_of(found, truth)
    for key, value in errors.items():
        record_property(key, value)
    assert errors["norm"] < 0.006
    assert errors["max"] < 0.006
    assert abs(errors["slope"] - 1) < 0.003
    # EK-FAC is exact for one linear output, and each method that is not about this training is told from it.
    same = SourceAttribution(n_segments=25).fit(net, X, y).transform(X_query)
    np.testing.assert_allclose(same, found, rtol=1e-4, atol=1e-5 * np.abs(found).max())
    for other in (InfluenceFunctions(curvature="exact", damping=0.0), TracIn()):
        scores = other.fit(net, X, y).transform(X_query)
        assert np.linalg.norm(scores - truth) > 0.1 * np.linalg.norm(truth)


def test_on_a_linear_model_ekfac_is_exact_and_the_other_methods_are_told_apart():
    """One linear output: EK-FAC is the matrix itself. Short of convergence: neither limit of SOURCE is near."""
    X, y, X_query = problem()
    net, initial = trained(X, y, 0.01)
    truth = retrained(net, initial, X, y, X_query, 0.01)
    for curvature in ("ekfac", "kfac"):
        found = SourceAttribution(n_segments=25, curvature=curvature).fit(net, X, y).transform(X_query)
        assert errors_of(found, truth)["norm"] < 0.01
    for other in (InfluenceFunctions(curvature="exact", damping=0.0), TracIn()):
        assert errors_of(other.fit(net, X, y).transform(X_query), truth)["norm"] > 0.1
