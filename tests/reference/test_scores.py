"""Scores and measurements of the reference against closed forms and matrix exponentials."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from . import (
    ReferenceSegment,
    block_factors,
    blocks_matrix,
    ggn,
    influence_scores,
    log_odds,
    log_odds_binary,
    log_odds_probabilities,
    neg_loss,
    predicted_class,
    prediction,
    quadrature_weights,
    row_gradients,
    segment_operators,
    segment_rate,
    segment_second_order,
    softmax_columns,
    source_scores,
    tracin_scores,
)
from ._cases import block_diagonal_checkpoints, cross_entropy, mse, random


def integral_of_propagator(generator):
    """``int_0^1 exp(-s B) ds`` by one matrix exponential of a block matrix (Van Loan 1978)."""
    n = len(generator)
    big = torch.zeros(2 * n, 2 * n, dtype=torch.float64)
    big[:n, :n], big[:n, n:] = -generator, torch.eye(n)
    return torch.linalg.matrix_exp(big)[:n, n:]


def test_segment_operators_solve_the_flow():
    root = random(3, 5)
    H = root.T @ root / 3  # rank 3 of 5: sigma = 0 is there
    gradients = [random(4, 5, seed=2)]
    eye = torch.eye(5, dtype=torch.float64)
    for h, rho in ((1.7, 0.0), (0.4, 0.3), (random(5, seed=3).abs() + 0.1, 0.2), (0.8, random(5, seed=4).abs())):
        D = torch.diag(h) if torch.is_tensor(h) else h * eye
        R = torch.diag(rho) if torch.is_tensor(rho) else rho * eye
        F, S = segment_operators(ReferenceSegment(h, rho, [1.0], gradients, H))
        torch.testing.assert_close(S, torch.linalg.matrix_exp(-D @ (H + R)).T)
        torch.testing.assert_close(F, integral_of_propagator(D @ (H + R)) @ D)


def test_block_operators_equal_dense_ones():
    module, checkpoints, X, y = block_diagonal_checkpoints("mlp")
    blocks = block_factors(module, checkpoints, softmax_columns, X)
    H = blocks_matrix(blocks)
    gradients = [random(2, len(H))]
    for h, rho in ((3.0, 0.01), (torch.full((len(H),), 3.0, dtype=torch.float64), 0.01)):
        by_block = segment_operators(ReferenceSegment(h, rho, [1.0], gradients, blocks))
        dense = segment_operators(ReferenceSegment(h, rho, [1.0], gradients, H))
        torch.testing.assert_close(by_block, dense)


def test_cutting_a_stationary_segment_changes_nothing():
    root, g, q = random(6, 4), random(5, 4, seed=1), random(2, 4, seed=2)
    H = root.T @ root / 6
    whole = source_scores([ReferenceSegment(2.0, 0.1, [1.0], [g], H)], q)
    parts = source_scores([ReferenceSegment(h, 0.1, [1.0], [g], H) for h in (0.5, 1.2, 0.3)], q)
    torch.testing.assert_close(whole, parts)


def test_limits_of_source_are_tracin_and_influence_functions():
    root, g, q = random(9, 4), random(5, 4, seed=1), random(2, 4, seed=2)
    H = root.T @ root / 9
    short = source_scores([ReferenceSegment(1e-6, 0.0, [1.0], [g], H)], q)
    torch.testing.assert_close(short, tracin_scores([1e-6], [q], [g]), rtol=1e-4, atol=0)
    torch.testing.assert_close(
        source_scores([ReferenceSegment(1e4, 0.02, [1.0], [g], H)], q), influence_scores(H, q, g, damping=0.02)
    )


def test_a_row_scores_only_in_its_stage():
    H, q = torch.eye(3, dtype=torch.float64), random(2, 3)
    first, second = random(2, 3, seed=1), random(4, 3, seed=2)
    segments = [
        ReferenceSegment(0.5, 0.0, [1.0], [first], H, rows=torch.tensor([5, 1])),
        ReferenceSegment(0.25, 0.0, [1.0], [second], H, rows=torch.tensor([0, 2, 3, 4])),
    ]
    tau = source_scores(segments, q, n_train=6)
    F = -torch.expm1(torch.tensor([-0.5, -0.25], dtype=torch.float64))
    torch.testing.assert_close(tau[:, [0, 2, 3, 4]], -F[1] * q @ second.T / 4)
    torch.testing.assert_close(
        tau[:, [5, 1]], -F[0] * torch.exp(torch.tensor(-0.25)) * q @ first.T / 2, rtol=1e-6, atol=0
    )


def test_quadrature_and_rates_of_momentum():
    assert quadrature_weights([0, 10, 40]) == pytest.approx([0.125, 0.5, 0.375])
    assert quadrature_weights([0, 10, 40], "right") == pytest.approx([0, 0.5, 0.5])
    # velocities 1, then .9 + .5 of which the first step's pull made .9; Nesterov steps by 1 + .9 v with v = 1, then 1.9
    assert segment_rate([0.1, 0.2], 0, 2, momentum=0.9, dampening=0.5) == pytest.approx(0.1 + 0.28)
    assert segment_rate([0.1, 0.2], 0, 1, momentum=0.9, dampening=0.5) == pytest.approx(0.1 + 0.18)
    assert segment_rate([0.1, 0.2], 0, 2, momentum=0.9, nesterov=True) == pytest.approx(0.19 + 0.2 * 2.71)
    assert segment_rate([0.1] * 400, 9, 10, momentum=0.9) == pytest.approx(0.1 / (1 - 0.9))  # the terminal velocity
    assert segment_second_order([0.1] * 50, 10, 30) == pytest.approx(0.5 / 20, rel=1e-5)
    assert segment_second_order([0.1] * 400, 150, 250, momentum=0.9) == pytest.approx((9 + 0.5) / 100, rel=1e-5)


def test_influence_on_least_squares_is_the_hat_matrix_formula():
    X, y, X_query = random(30, 4), random(30, 1, seed=1), random(5, 4, seed=2)
    module = nn.Linear(4, 1, bias=False).double().eval()
    inverse = torch.linalg.inv(X.T @ X)
    params = {"weight": (inverse @ X.T @ y).T}
    residual = (y - X @ params["weight"].T)[:, 0]
    expected = X_query @ inverse @ X.T * residual
    H = ggn(module, params, mse, X, y)
    q, _ = row_gradients(module, params, prediction(), X_query)
    g, _ = row_gradients(module, params, mse, X, y)
    tau = influence_scores(H, q, g)
    torch.testing.assert_close(tau, expected)
    leverage = torch.diagonal(X @ inverse @ X.T)
    for m in range(len(X)):
        keep = torch.arange(len(X)) != m
        without = torch.linalg.lstsq(X[keep], y[keep]).solution
        removal = X_query @ params["weight"].T - X_query @ without
        torch.testing.assert_close(removal[:, 0], tau[:, m] / (1 - leverage[m]))


def test_measurements_against_the_definition():
    z, y = random(1, 4), torch.tensor([2])
    p = torch.softmax(z, dim=-1)
    expected = torch.log(p[0, 2]) - torch.log(1 - p[0, 2])
    torch.testing.assert_close(log_odds(z, y), expected)
    torch.testing.assert_close(log_odds_probabilities(p, y), expected)
    torch.testing.assert_close(neg_loss(cross_entropy)(z, y), torch.log(p[0, 2]))
    assert prediction(3)(z) == z[0, 3]
    assert int(predicted_class(z)) == int(z.argmax())
    logit = torch.tensor([[-0.7]], dtype=torch.float64)
    assert int(predicted_class(logit)) == 0
    assert float(log_odds_binary(logit, torch.tensor([1.0]))) == pytest.approx(-0.7)
    assert float(log_odds_binary(logit, torch.tensor([0.0]))) == pytest.approx(0.7)
