"""Influence functions, TracIn and the similarities against the dense float64 reference and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch import NeuralNetRegressor
from torch import nn

from sklearn_source import GradientSimilarity, InfluenceFunctions, RepresentationSimilarity, SourceAttribution, TracIn
from tests._methods import apart, joint
from tests.attribution._runs import STEPS, TOLERANCE, Hyper, Run, as_double, relative
from tests.reference import influence_scores, neg_loss, row_gradients, source_scores, tracin_scores

KINDS = pytest.mark.parametrize("kind", ["mlp", "regressor", "conv"])
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
DECAY = 0.02
HYPER = {"momentum": 0.5, "weight_decay": DECAY}


def scores(run, method):
    return method.fit(run.net, run.X, run.y).transform(run.X_query)


def dampings(blocks):
    """A tenth of the mean eigenvalue of every layer, one number per block: groups of a convolution are one layer."""
    layers = {}
    for block in blocks:
        layers.setdefault(block.label.split("[")[0], []).append(block.eigenvalues.flatten())
    return [0.1 * float(torch.cat(layers[block.label.split("[")[0]]).mean()) for block in blocks]


@KINDS
@DTYPES
@pytest.mark.parametrize("curvature", ["ekfac", "kfac", "diagonal", "identity", "exact"])
@pytest.mark.parametrize("damping", [0.03, "mean_eigenvalue", "trajectory"])
def test_influence_functions(kind, dtype, curvature, damping, run):
    r = run(kind, dtype, **HYPER)
    H = r.curvature([(r.params(STEPS), 1.0)], curvature)
    if damping == "trajectory":
        each = 1 / r.h(0, STEPS)
    elif damping == "mean_eigenvalue":
        each = dampings(H) if curvature != "exact" else 0.1 * float(torch.trace(H)) / len(H)
    else:
        each = damping
    decayed = [d + DECAY for d in each] if isinstance(each, list) else each + DECAY
    expected = influence_scores(H, r.queries(), r.gradients(STEPS), decayed)
    method = InfluenceFunctions(curvature=apart(curvature), damping=damping)
    assert relative(scores(r, method), expected) < TOLERANCE[dtype]
    if damping == "mean_eigenvalue" and curvature == "ekfac":
        expected = {block.label.split("[")[0].removesuffix(".weight"): d for block, d in zip(H, each)}
        found = {name.removesuffix(".weight"): d for name, d in method.damping_.items()}
        assert found == pytest.approx(expected, rel=TOLERANCE[dtype])
    if damping == "trajectory":
        assert list(method.damping_.values()) == pytest.approx([each] * len(method.damping_))


@KINDS
def test_influence_functions_with_the_empirical_fisher(kind, run):
    r = run(kind, **HYPER)
    H = r.curvature([(r.params(STEPS), 1.0)], "ekfac", "empirical")
    expected = influence_scores(H, r.queries(), r.gradients(STEPS), 0.03 + DECAY)
    assert relative(scores(r, InfluenceFunctions(curvature=apart(fisher="empirical"), damping=0.03)), expected) < 1e-7


@KINDS
@pytest.mark.parametrize("preconditioner", ["ekfac", "kfac", "diagonal"])
def test_the_coupled_solve_reaches_the_dense_solution(kind, preconditioner, run):
    r = run(kind, **HYPER)
    H = r.curvature([(r.params(STEPS), 1.0)], "exact")
    expected = influence_scores(H, r.queries(), r.gradients(STEPS), 0.01 + DECAY)
    assert relative(scores(r, InfluenceFunctions(curvature=joint(preconditioner), damping=0.01)), expected) < 1e-7


def test_the_coupled_solve_with_one_damping_per_layer(run):
    r = run("mlp", **HYPER)
    checkpoint = [(r.params(STEPS), 1.0)]
    blocks, H = r.curvature(checkpoint), r.curvature(checkpoint, "exact")
    damped = H.clone()
    for block, damping in zip(blocks, dampings(blocks)):
        where = block.index.flatten()
        damped[where, where] += damping + DECAY
    expected = -r.queries() @ torch.linalg.solve(damped, r.gradients(STEPS).T) / len(r.X)
    method = InfluenceFunctions(curvature=joint(), damping="mean_eigenvalue")
    assert relative(scores(r, method), expected) < 1e-7


def test_no_damping_leaves_out_what_no_row_moves(run):
    r = run("regressor", momentum=0.5)
    H = r.curvature([(r.params(STEPS), 1.0)], "exact")
    expected = -r.queries() @ torch.linalg.pinv(H, hermitian=True, rtol=1e-12) @ r.gradients(STEPS).T / len(r.X)
    assert relative(scores(r, InfluenceFunctions(curvature="exact", damping=0.0)), expected) < 1e-6


def test_least_squares_is_the_hat_matrix_formula():
    rng = np.random.default_rng(0)
    X, X_query = rng.normal(size=(30, 4)), rng.normal(size=(5, 4))
    y = X @ rng.normal(size=(4, 1)) + rng.normal(size=(30, 1))
    net = NeuralNetRegressor(
        nn.Linear, module__in_features=4, module__out_features=1, module__bias=False, module__dtype=torch.float64,
        train_split=None, verbose=0, max_epochs=0,
    ).fit(X, y)  # fmt: skip
    inverse = np.linalg.inv(X.T @ X)
    weights = inverse @ X.T @ y
    with torch.no_grad():
        net.module_.weight.copy_(torch.from_numpy(weights.T))
    residual = (y - X @ weights)[:, 0]
    expected = X_query @ inverse @ X.T * residual
    for curvature in ("exact", "ekfac", "kfac"):  # one linear output: they are the same matrix
        found = InfluenceFunctions(curvature=curvature, damping=0.0).fit(net, X, y).transform(X_query)
        assert relative(found, expected) < 1e-6
    leverage = np.einsum("ni,ij,nj->n", X, inverse, X)
    for m in (0, 7):
        keep = np.arange(30) != m
        without = np.linalg.lstsq(X[keep], y[keep], rcond=None)[0]
        removal = (X_query @ weights - X_query @ without)[:, 0]
        np.testing.assert_allclose(removal, found[:, m] / (1 - leverage[m]), rtol=1e-5)
    ridge = InfluenceFunctions(curvature="exact", damping=0.3).fit(net, X, y).transform(X_query)
    shrunk = np.linalg.inv(2 / 30 * X.T @ X + 0.3 * np.eye(4))
    assert relative(ridge, 2 / 30 * X_query @ shrunk @ X.T * residual) < 1e-6


def half(step):
    return 1.0 if step < 10 else 0.5


@KINDS
@DTYPES
@pytest.mark.parametrize("quadrature", ["trapezoid", "right"])
@pytest.mark.parametrize("hyper", [{"momentum": 0.5, "weight_decay": 0.1}, {"schedule": half}], ids=["momentum", "cut"])
def test_tracin(kind, dtype, quadrature, hyper, run):
    r = run(kind, dtype, **hyper)
    assert relative(scores(r, TracIn(quadrature=quadrature)), tracin_reference(r, quadrature)) < TOLERANCE[dtype]


def test_tracin_with_parameter_groups():
    groups = {"0.*": {"lr": 0.01}, "*.bias": {"lr": 0.2}}
    for kind in ("mlp", "conv"):
        r = Run(kind, "float64", Hyper(momentum=0.5, groups=groups))
        assert relative(scores(r, TracIn()), tracin_reference(r, "trapezoid")) < 1e-7


def tracin_reference(r, quadrature):
    """Checkpoint c stands for half of the steps on either side of it, or for those since the one before."""
    steps = sorted({s for _, s in r.at})
    between = [r.h(a, b) for a, b in zip(steps, steps[1:])]
    if quadrature == "trapezoid":
        rates = [(a + b) / 2 for a, b in zip([0 * between[0], *between], [*between, 0 * between[0]])]
    else:
        rates = [0 * between[0], *between]
    return tracin_scores(rates, [r.queries(s) for s in steps], [r.gradients(s) for s in steps])


def test_the_class_a_query_is_measured_on_is_that_of_the_trained_network():
    """Of a query whose prediction changed while training, TracIn follows one class, the final one."""
    r = Run("conv", "float64", Hyper(lr=0.1))
    with torch.no_grad():
        predicted = [
            torch.func.functional_call(r.module64, r.params(s), as_double(r.X_query)).argmax(1) for s in (0, STEPS)
        ]
    assert (predicted[0] != predicted[1]).any()
    method = TracIn().fit(r.net, r.X, r.y)
    assert np.array_equal(method.transform(r.X_query), method.transform(r.X_query, predicted[1].numpy()))
    assert relative(method.transform(r.X_query), tracin_reference(r, "trapezoid")) < 1e-7


@KINDS
@DTYPES
def test_gradient_similarity(kind, dtype, run):
    r = run(kind, dtype, **HYPER)
    q, g = -r.queries(), r.gradients(STEPS)
    dot = q @ g.T
    assert relative(scores(r, GradientSimilarity(metric="dot")), dot) < TOLERANCE[dtype]
    cosine = dot / q.norm(dim=1)[:, None] / g.norm(dim=1)
    assert relative(scores(r, GradientSimilarity()), cosine) < TOLERANCE[dtype]
    own = GradientSimilarity().fit(r.net, r.X, r.y).self_influence()
    np.testing.assert_allclose(own, 1.0, rtol=1e-5)


@KINDS
@DTYPES
@pytest.mark.parametrize("layer", [None, "1", "0"])
def test_representation_similarity(kind, dtype, layer, run):
    r = run(kind, dtype, **HYPER)
    module, params = r.module64, r.params(STEPS)
    module.load_state_dict(params, strict=False)
    upto = len(module) - 1 if layer is None else int(layer) + 1
    with torch.no_grad():
        q, g = (module[:upto](as_double(X)).flatten(1) for X in (r.X_query, r.X))
    expected = {
        "dot": q @ g.T,
        "cosine": q @ g.T / q.norm(dim=1)[:, None] / g.norm(dim=1),
        "l2": -(q[:, None] - g[None]).norm(dim=2),
    }
    for metric, value in expected.items():
        method = RepresentationSimilarity(metric=metric, layer=layer)
        assert relative(scores(r, method), value) < TOLERANCE[dtype]


def test_self_influence_is_the_score_of_a_row_for_itself(run):
    for kind in ("mlp", "regressor", "conv"):
        r = run(kind, **HYPER)
        q, _ = row_gradients(r.module64, r.params(STEPS), neg_loss(r.loss_fn), *r.rows)
        own = SourceAttribution(n_segments=2, curvature=apart()).fit(r.net, r.X, r.y).self_influence()
        expected = source_scores([r.segment(0, 12), r.segment(12, 24)], q).diagonal()
        assert relative(own, expected) < 1e-7
        H = r.curvature([(r.params(STEPS), 1.0)])
        expected = influence_scores(H, q, r.gradients(STEPS), 0.03 + DECAY).diagonal()
        own = InfluenceFunctions(damping=0.03, curvature=apart()).fit(r.net, r.X, r.y).self_influence()
        assert relative(own, expected) < 1e-7
        assert (own > 0).all()  # a positive definite form of the row's own gradient
