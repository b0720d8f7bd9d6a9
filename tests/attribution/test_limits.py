"""SOURCE between its two limits: TracIn for short training, influence functions for long."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sklearn_source import InfluenceFunctions, SourceAttribution, TracIn
from sklearn_source.attribution._source_segment import FittedSegment
from sklearn_source.trajectory import Trajectory
from tests._methods import apart
from tests.attribution._runs import STEPS, relative
from tests.reference import influence_scores, tracin_scores

KINDS = pytest.mark.parametrize("kind", ["mlp", "regressor", "conv"])


def at_rate(run, lr, *, weight_decay=0.0, points=None):
    """The run's checkpoints, said to have been reached at another rate."""
    points = points or run.trajectory.checkpoints
    states = [{k: v.clone() for k, v in {**c.parameters, **c.buffers}.items()} for c in points]
    steps = [c.step for c in run.trajectory.checkpoints][: len(points)]
    return Trajectory.from_checkpoints(
        states, steps, lr, module=run.net.module_, weight_decay=weight_decay, n_rows=len(run.X)
    )  # fmt: skip


def source(run, trajectory, **options):
    method = SourceAttribution(trajectory=trajectory, **options)
    return method.fit(run.net, run.X, run.y).transform(run.X_query)


@KINDS
def test_long_training_is_an_influence_function_averaged_over_the_segment(kind, run):
    r, rho = run(kind, momentum=0.5), 0.02
    segment = r.segment(0, STEPS)
    mean = sum(w * g for w, g in zip(segment.weights, segment.row_gradients))
    expected = influence_scores(segment.curvature, r.queries(), mean, rho)
    errors = [
        relative(source(r, at_rate(r, lr, weight_decay=rho), n_segments=1, curvature=apart()), expected)
        for lr in (1.0, 10.0, 1e4)
    ]
    assert errors[0] > 1e-2 > errors[1]  # 24 steps: exp(-24 * 0.02), exp(-4.8), nothing
    assert errors[2] < 1e-6


@KINDS
def test_at_the_trained_weights_the_limits_are_the_other_two_methods(kind, run):
    """The same network at every checkpoint: nothing but the rate is left to differ."""
    r, rho = run(kind, momentum=0.5), 0.05
    last = [r.trajectory.checkpoints[-1]] * 7
    influence = InfluenceFunctions(damping=rho).fit(r.net, r.X, r.y).transform(r.X_query)
    for n_segments in (1, 3):
        found = source(r, at_rate(r, 1e6, weight_decay=rho, points=last), n_segments=n_segments)
        assert relative(found, influence) < 1e-6
    errors = []
    for lr in (1e-3, 1e-4, 1e-5):
        trajectory = at_rate(r, lr, points=last)
        tracin = TracIn(trajectory=trajectory).fit(r.net, r.X, r.y).transform(r.X_query)
        errors.append(relative(source(r, trajectory, n_segments=3), tracin))
    assert errors[2] < 1e-3
    assert errors[1] < 0.2 * errors[0]  # first order in the rate
    assert errors[2] < 0.2 * errors[1]


@KINDS
def test_short_training_is_tracin_with_the_final_query_gradient(kind, run):
    r = run(kind, momentum=0.5)
    q, segment = r.queries(), r.segment(0, STEPS)
    rates = [24 * 1e-6 * w for w in segment.weights]
    expected = tracin_scores(rates, [q] * 7, segment.row_gradients)
    for n_segments in (1, 2, 3):
        assert relative(source(r, at_rate(r, 1e-6), n_segments=n_segments), expected) < 1e-4


def test_quantiles_tell_which_limit_it_is(run):
    r = run("mlp", momentum=0.5)
    for lr, low, high in ((1e-6, 0, 1e-3), (1e6, 1e3, np.inf)):
        estimator = SourceAttribution(n_segments=1, trajectory=at_rate(r, lr, weight_decay=0.01)).fit(r.net, r.X, r.y)
        quantiles = list(estimator.segments_[0].h_sigma_quantiles.values())
        assert all(low <= q <= high for q in quantiles)
        assert quantiles == sorted(quantiles)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_two_functions_of_a_segment(dtype):
    """Over thirty orders of magnitude: accurate near zero, damped like 1 / (s + 1/h) throughout."""
    h = 3.0
    segment = FittedSegment([], None, None, h, [1.0], [0.0], None, 1, [0.0])
    s = torch.cat([torch.zeros(1), torch.logspace(-20, 10, 301)]).to(dtype)
    F, S = segment.integration(s, 0).double().numpy(), segment.propagation(s, 0).double().numpy()
    x = h * s.double().numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.where(x > 0, -np.expm1(-x) / x, 1.0) * h
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    np.testing.assert_allclose(F, expected, rtol=tolerance)
    np.testing.assert_allclose(S[x < 80], np.exp(-x[x < 80]), rtol=100 * tolerance)
    ratio = F / (1 / (s.double().numpy() + 1 / h))
    assert ratio.min() > 1 - tolerance
    assert ratio.max() < 1.299  # (1 - exp(-x)) (1 + x) / x at x = 1.79
    discrete = FittedSegment([], None, None, h, [1.0], [0.0], None, 1, [0.25])  # (1 - x/2)^2 and its like for two steps
    left = discrete.propagation(s, 0).double().numpy()
    near = x < 0.1
    np.testing.assert_allclose(left[near], (1 - x[near] / 2) ** 2, rtol=1e-4)
    gone = discrete.integration(s, 0).double().numpy() * s.double().numpy()
    np.testing.assert_allclose(gone[x > 1e-3], 1 - left[x > 1e-3], rtol=1e-3)
    decayed = FittedSegment([], None, None, h, [1.0], [0.5], None, 1, [0.0])
    np.testing.assert_allclose(decayed.integration(s, 0), segment.integration(s + 0.5, 0), rtol=tolerance)
