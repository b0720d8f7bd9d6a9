"""The reference's training, and the method itself against actual retraining."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from . import (
    Recipe,
    ReferenceSegment,
    finite_difference_effects,
    ggn,
    influence_scores,
    leave_one_out_effects,
    mean_hessian,
    measure,
    mse_columns,
    prediction,
    quadrature_weights,
    row_gradients,
    segment_rate,
    segment_second_order,
    source_from_checkpoints,
    source_scores,
    train,
)
from ._cases import build, cross_entropy, linear_problem, mlp_case, mse, random
from ._training import replica


@pytest.mark.parametrize(
    "settings",
    [
        {"momentum": 0.9, "weight_decay": 0.1},
        {"momentum": 0.8, "dampening": 0.3},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.05},
    ],
    ids=str,
)
def test_training_is_torch_sgd(settings):
    module, params, X, y = mlp_case()
    rates = [0.1, 0.05, 0.2, 0.1, 0.02]
    batches = [[0, 1], [2, 3, 5], [4, 0], [1, 2, 3], [5, 4]]
    kept = train(module, params, cross_entropy, X, y, Recipe(5, rates, batches=batches, **settings), torch.ones(1, 6))
    twin = copy.deepcopy(module)
    optimizer = torch.optim.SGD(twin.parameters(), lr=1.0, **settings)
    for rate, batch in zip(rates, batches, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        cross_entropy(twin(X[batch]), y[batch]).backward()
        optimizer.step()
    for name, p in twin.named_parameters():
        torch.testing.assert_close(replica(kept[5])[name], p.detach())


def test_retraining_effects_against_autograd_through_training_and_plain_removal():
    X, y, X_query = random(7, 3), random(7, 1, seed=1), random(2, 3, seed=2)
    module, params = build(nn.Linear(3, 1))
    recipe = Recipe(20, 0.05, momentum=0.5, weight_decay=0.1)
    weights = torch.ones(1, 7, dtype=torch.float64, requires_grad=True)
    final = train(module, params, mse, X, y, recipe, weights)[20]
    exact = torch.stack(
        [
            torch.autograd.grad(f, weights, retain_graph=True)[0][0]
            for f in measure(module, final, prediction(), X_query)[0]
        ]
    )
    effects = finite_difference_effects(module, params, mse, X, y, recipe, prediction(), X_query)
    torch.testing.assert_close(effects, exact, rtol=1e-3, atol=1e-5)
    removed = leave_one_out_effects(module, params, mse, X, y, recipe, prediction(), X_query)
    # dropping row 3 with 1/N kept = training on six rows with every loss times 6/7
    keep = [0, 1, 2, 4, 5, 6]
    without = train(
        module, params, mse, X[keep], y[keep], recipe, torch.full((1, 6), 6 / 7, dtype=torch.float64)
    )[20]  # fmt: skip
    f_all, f_without = (measure(module, s, prediction(), X_query)[0].detach() for s in (final, without))
    torch.testing.assert_close(removed[:, 3], f_all - f_without)


def relative_error(tau, truth):
    return float((tau - truth).norm() / truth.norm())


def trajectory_segments(module, params, loss_fn, X, y, recipe, n_checkpoints, curvature, quadrature="trapezoid"):
    """One segment per checkpoint; ``curvature(params)`` at its two ends is averaged with the same weights."""
    steps = [recipe.n_steps * i // n_checkpoints for i in range(n_checkpoints + 1)]
    kept = train(module, params, loss_fn, X, y, recipe, torch.ones(1, len(X), dtype=torch.float64), record=steps)
    at = {s: replica(kept[s]) for s in steps}
    gradients = {s: row_gradients(module, at[s], loss_fn, X, y)[0] for s in steps}
    matrices = {s: curvature(at[s]) for s in steps}
    lr = [recipe.rate(k) for k in range(recipe.n_steps)]
    segments = []
    for start, end in zip(steps, steps[1:], strict=False):
        weights = quadrature_weights([start, end], quadrature)
        rule = lr, start, end, recipe.momentum, recipe.dampening
        H = weights[0] * matrices[start] + weights[1] * matrices[end]
        both = [gradients[start], gradients[end]]
        h, c = segment_rate(*rule), segment_second_order(*rule)
        segments.append(ReferenceSegment(h, recipe.weight_decay, weights, both, H, second=c))
    return segments, at[steps[-1]]


# Relative error in the Frobenius norm. What is left is the quadrature (25 segments) and the third order of the steps.
UNITS = {
    "descent": (Recipe(400, 0.02), 1e-3),
    "decay": (Recipe(400, 0.02, weight_decay=0.05), 1e-3),
    "momentum": (Recipe(400, 0.002, momentum=0.9), 3e-3),
    "momentum-decay": (Recipe(400, 0.002, momentum=0.9, weight_decay=0.05), 3e-3),
    "dampening-schedule": (Recipe(400, [0.008 * (1 - k / 800) for k in range(400)], 0.9, dampening=0.5), 3e-3),
}


@pytest.mark.parametrize("name", UNITS)
def test_source_is_the_effect_of_reweighting_a_row_in_retraining(name, record_property):
    module, params, X, y, X_query = linear_problem()
    recipe, tolerance = UNITS[name]
    H = ggn(module, params, mse, X, y)  # constant: the model is linear and the loss quadratic
    segments, final = trajectory_segments(module, params, mse, X, y, recipe, 25, lambda _: H)
    q, _ = row_gradients(module, final, prediction(), X_query)
    tau = source_scores(segments, q)
    truth = finite_difference_effects(module, params, mse, X, y, recipe, prediction(), X_query)
    error = relative_error(tau, truth)
    record_property("relative_error", error)
    record_property("slope", float((tau * truth).sum() / truth.square().sum()))
    assert error < tolerance
    # it is the finite training time that is met, and the scale of H: neither a converged influence nor twice H is near
    assert relative_error(influence_scores(H, q, segments[-1].row_gradients[1], recipe.weight_decay), truth) > 0.1
    for segment in segments:
        segment.curvature = 2 * H
    assert relative_error(source_scores(segments, q), truth) > 0.1


def test_source_from_checkpoints_is_the_same_computation():
    module, params, X, y, X_query = linear_problem()
    recipe = Recipe(60, 0.02, weight_decay=0.05)
    H = ggn(module, params, mse, X, y)
    segments, final = trajectory_segments(module, params, mse, X, y, recipe, 3, lambda _: H)
    kept = train(module, params, mse, X, y, recipe, torch.ones(1, 60, dtype=torch.float64), record=(0, 20, 40))
    described = [
        ([(replica(kept[a]), 0.5), (replica(kept[b]), 0.5)], 0.02 * 20, 0.05, 0.5 / 20)
        for a, b in ((0, 20), (20, 40), (40, 60))
    ]
    tau = source_scores(segments, row_gradients(module, final, prediction(), X_query)[0])
    for options in ({"curvature": "exact"}, {"curvature": "ekfac", "columns_fn": mse_columns}):
        other = source_from_checkpoints(module, described, mse, X, y, prediction(), X_query, **options)
        torch.testing.assert_close(tau, other)  # one linear output: EK-FAC is exact


def test_source_on_a_small_network_follows_retraining(record_property):
    module, params = build(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
    X, X_query = random(16, 2), random(5, 2, seed=1)
    y = torch.sin(2 * X[:, :1]) + 0.2 * random(16, 1, seed=2)
    recipe = Recipe(200, 0.05)
    truth = finite_difference_effects(module, params, mse, X, y, recipe, prediction(), X_query)
    errors = {}
    for kind, curvature in (
        ("hessian", lambda p: mean_hessian(module, p, mse, X, y)),
        ("ggn", lambda p: ggn(module, p, mse, X, y)),
    ):
        segments, final = trajectory_segments(module, params, mse, X, y, recipe, 10, curvature)
        tau = source_scores(segments, row_gradients(module, final, prediction(), X_query)[0])
        errors[kind] = relative_error(tau, truth)
        record_property(kind, errors[kind])
        correlation = torch.corrcoef(torch.stack([tau.reshape(-1), truth.reshape(-1)]))[0, 1]
        record_property(f"{kind}_correlation", float(correlation))
        assert correlation > 0.9
    assert errors["hessian"] < 0.05
