"""Curvature across layers, against dense matrices: through whole methods, on recorded trainings."""

from __future__ import annotations

import functools
import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklearn_source import InfluenceFunctions, SourceAttribution, TrajectoryRecorder
from sklearn_source.curvature import EKFAC, Inverse, _fisher_sample, fit_curvature
from sklearn_source.curvature._coupled_space import CoupledSpace
from sklearn_source.curvature._fisher_sample import FisherSample
from tests._methods import apart, joint
from tests.attribution import _layers  # noqa: F401 (adds networks with attention to the kinds)
from tests.attribution._runs import STEPS, Hyper, Run, relative
from tests.attribution.test_adaptive_reference import adaptive_run, metric_segment
from tests.curvature._problems import matrix_of as curvature_matrix
from tests.reference._coupling import (
    CoupledMetricSegment,
    CoupledSegment,
    coupled_influence_scores,
    coupled_source_scores,
)

KINDS = pytest.mark.parametrize("kind", ["mlp", "conv", "attention"])
DECAY = 0.02
GROUPS = {"0.*": {"lr": 0.02, "weight_decay": 0.1}, "*bias": {"weight_decay": 0.0}}
# Kind, optimizer, segments.
CASES = [
    *((kind, "SGD", 3) for kind in ("mlp", "conv", "attention")),
    *((kind, "AdamW", 3) for kind in ("mlp", "conv", "attention")),
    *(("mlp", optimizer, 1) for optimizer in ("SGD", "AdamW")),
    ("mlp", "Adam", 3),  # decay that enters the gradient is a penalty in the metric
    ("conv", "Adam", 1),
    ("mlp", "groups", 3),
    ("conv", "groups", 1),
]
pytestmark = pytest.mark.filterwarnings("ignore:the coupled solve left")


@functools.cache
def trained(kind, optimizer):
    if optimizer in ("Adam", "AdamW"):
        return adaptive_run(kind, "float64", optimizer)
    groups = GROUPS if optimizer == "groups" else {}
    return Run(kind, "float64", Hyper(momentum=0.5, weight_decay=DECAY, groups=groups))


def segments_of(r, optimizer, n_segments):
    ends = [STEPS * i // n_segments for i in range(n_segments + 1)]
    if optimizer in ("Adam", "AdamW"):
        plain = r.curvature([(r.params(STEPS), 1.0)])
        return [CoupledMetricSegment(metric_segment(r, optimizer, a, b), plain) for a, b in zip(ends, ends[1:])]
    return [CoupledSegment(r.segment(a, b), r.segment(a, b, kind="exact").curvature) for a, b in zip(ends, ends[1:])]


def coupling(n_iter, max_rows=None):
    if not n_iter:
        return EKFAC(max_rows=max_rows)
    return EKFAC(coupling="krylov", n_iter=n_iter, max_rows=max_rows)


def scores(method, r):
    return method.fit(r.net, r.X, r.y).transform(r.X_query)


# --- against dense matrices ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "optimizer", "n_segments"), CASES)
def test_source(kind, optimizer, n_segments):
    r = trained(kind, optimizer)

    def found(curvature):
        return scores(SourceAttribution(n_segments=n_segments, curvature=curvature), r)

    segments = segments_of(r, optimizer, n_segments)
    for n_iter in (0, 1, 3):
        expected = coupled_source_scores(segments, r.queries(), n_iter)
        assert relative(found(coupling(n_iter)), expected) < 1e-6, n_iter
        if n_iter != 1:  # kept columns, where all of them fit
            assert relative(found(coupling(n_iter, "auto")), expected) < 1e-6, n_iter
    # The solve to its end, on the smallest network: influence functions take it there on all of them. One decay, as one
    # matrix has.
    if kind == "mlp" and optimizer != "groups":
        whole = found("exact")
        assert relative(found(joint()), whole) < 1e-3
        assert relative(found(apart()), whole) > 0.03


@KINDS
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_influence_functions(kind, optimizer):
    r = trained(kind, optimizer)
    if optimizer == "SGD":
        blocks, H = (r.curvature([(r.params(STEPS), 1.0)], form) for form in ("ekfac", "exact"))
        for n_iter in (0, 1, 3):
            expected = coupled_influence_scores(blocks, H, r.queries(), r.gradients(STEPS), 0.03 + DECAY, n_iter)
            found = scores(InfluenceFunctions(damping=0.03, curvature=coupling(n_iter)), r)
            assert relative(found, expected) < 1e-6, n_iter
    for damping in (0.03, "trajectory"):
        whole, found, alone = (
            scores(InfluenceFunctions(damping=damping, curvature=curvature), r)
            for curvature in ("exact", joint(), apart())
        )
        assert relative(found, whole) < 1e-3
        assert relative(alone, whole) > 0.03


def linear_network(n_layers):
    """Deep and linear, at its minimum: it is a least-squares regression however many layers it has."""
    rng = np.random.default_rng(0)
    X, queries = rng.normal(size=(30, 3)), rng.normal(size=(5, 3))
    y = X @ [[1.0], [-2.0], [0.5]] + 0.5 * rng.normal(size=(30, 1))
    sizes = [3, *[6] * (n_layers - 1), 1]
    torch.manual_seed(0)
    module = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in zip(sizes, sizes[1:]))).double()
    net = NeuralNetRegressor(
        module, lr=0.05 if n_layers < 3 else 0.03, max_epochs=600, batch_size=-1, train_split=None, verbose=0,
        callbacks=[TrajectoryRecorder()], callbacks__print_log=None,
    ).fit(X, y)  # fmt: skip
    weights = np.linalg.lstsq(X, y, rcond=None)[0]
    np.testing.assert_allclose(net.predict(queries), queries @ weights, rtol=1e-9)
    return net, X, y, queries, queries @ np.linalg.solve(X.T @ X, X.T) * (y - X @ weights)[:, 0]


@pytest.mark.parametrize("n_layers", [1, 2, 3, 4])
def test_a_deep_linear_network_is_right_in_size(n_layers):
    """Every layer for itself corrects the whole residual: as many times too large as there are layers."""
    net, X, y, queries, truth = linear_network(n_layers)
    for method in (InfluenceFunctions(), SourceAttribution(n_segments=3)):
        slopes = {}
        for coupled in (None, "layers", "krylov"):
            found = method.set_params(curvature=EKFAC(coupling=coupled)).fit(net, X, y).transform(queries)
            slopes[coupled] = (found * truth).sum() / (truth**2).sum()
        assert 0.75 * n_layers < slopes[None] < 1.1 * n_layers
        assert slopes["layers"] == pytest.approx(1, rel=0.03)
        assert slopes["krylov"] == pytest.approx(1, rel=0.03)


# --- what is said -------------------------------------------------------------------------------------------------


def test_a_solve_that_stalled_is_said():
    r = Run("conv", "float64", Hyper())
    method = InfluenceFunctions(damping=1e-10, curvature=EKFAC(coupling="krylov", n_iter=1))
    with pytest.warns(
        ConvergenceWarning, match=r"left a relative residual of [\d.e+-]+ after n_iter=1 iter.*raise n_iter"
    ):
        scores(method, r)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        scores(InfluenceFunctions(damping=0.1, curvature=joint()), r)


def test_a_function_that_does_not_say_its_shifts(problem):
    p = problem("mlp", torch.float64)
    fitted = fit_curvature(EKFAC(), p.stream())
    encoded = fitted.encode(p.to_blocks(torch.ones(1, p.layout.size, dtype=torch.float64)))
    with pytest.raises(TypeError, match="couples layers needs phi as a SpectralFunction, .* got function"):
        fitted.scale(lambda values, block: 1 / (values + 1), encoded)


def test_a_network_of_one_block_has_nothing_to_couple():
    net, X, y, queries, _ = linear_network(1)
    alone, coupled = (
        SourceAttribution(curvature=curvature).fit(net, X, y).transform(queries) for curvature in (apart(), EKFAC())
    )
    np.testing.assert_array_equal(alone, coupled)


def test_krylov_mends_a_block_of_its_own():
    """Softmax of one layer: the Hessian of its outputs differs from row to row, which no Kronecker basis holds."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 4))
    y = (X @ rng.normal(size=(4, 3)) + rng.gumbel(size=(40, 3))).argmax(axis=1)
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        nn.Linear(4, 3).double(), criterion=nn.CrossEntropyLoss, lr=0.3, max_epochs=60, batch_size=10,
        train_split=None, verbose=0, callbacks=[TrajectoryRecorder()],
    ).fit(X, y)  # fmt: skip
    for method in (InfluenceFunctions(damping=0.01), SourceAttribution()):
        whole, found, alone = (
            method.set_params(curvature=curvature).fit(net, X, y).transform(X[:6])
            for curvature in ("exact", joint(n_iter=20), apart())
        )
        assert relative(found, whole) < 1e-3
        assert relative(alone, whole) > 0.03


# --- life of a fitted method --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [SourceAttribution, InfluenceFunctions])
@pytest.mark.parametrize("max_rows", [None, "auto", 20])
@pytest.mark.parametrize("n_iter", [0, 2])
def test_pickles_and_clones(method, max_rows, n_iter):
    r = trained("conv", "SGD")
    fitted = method(curvature=coupling(n_iter, max_rows)).fit(r.net, r.X, r.y)
    expected = fitted.transform(r.X_query)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).transform(r.X_query), expected)
    again = clone(fitted).set_params(batch_size=5).fit(r.net, r.X, r.y)
    assert relative(again.transform(r.X_query), expected) < 1e-6
    one = np.concatenate([fitted.transform(r.X_query[i : i + 1]) for i in range(len(r.X_query))])
    assert relative(one, expected) < 1e-6


@pytest.mark.parametrize("n_iter", [0, 3])
def test_what_is_held_per_query_is_counted(n_iter, problem):
    p = problem("conv", torch.float64)
    fitted = fit_curvature(coupling(n_iter), p.stream())
    encoded = fitted.encode(p.to_blocks(torch.ones(2, p.layout.size, dtype=torch.float64)))
    space = CoupledSpace(fitted, encoded, Inverse([0.1] * len(p.engine.blocks)))
    for _ in range(n_iter):
        space.extend()
    held = sum(t.numel() * t.element_size() for t in space.tensors) / 2
    assert held == fitted.bytes_per_query(p.layout.size, 8)


# --- the sample of columns ----------------------------------------------------------------------------------------


def matrix_of(p, sample):
    """(P, P): the outer products of what was drawn, which stand for H."""
    H = 0
    for batch, _ in sample.batches():
        g = p.from_blocks([column.matrix() for (column,) in batch])
        H = H + g.T @ g
    return H


def keys(seed, n_rows=9):
    return np.random.default_rng(seed).integers(2**63, size=n_rows).astype(np.uint64)


@pytest.mark.parametrize("name", ["mlp", "conv", "tokens", "tied"])
def test_everything_is_drawn_where_there_is_room(name, problem):
    p = problem(name, torch.float64)
    expected = curvature_matrix(p, p.stream())
    assert relative(matrix_of(p, FisherSample(p.stream(), 10_000)), expected) < 1e-10


def test_few_columns_stand_for_all(problem):
    p = problem("mlp", torch.float64)
    H = curvature_matrix(p, p.stream())
    errors = {}
    for size in (6, 24):
        drawn = torch.stack([matrix_of(p, FisherSample(p.stream(keys=keys(seed)), size)) for seed in range(80)])
        assert relative(drawn[0], H) > 0.01
        spread = (drawn - H).flatten(1).norm(dim=1).square().mean() ** 0.5 / H.norm()
        off = (drawn.mean(0) - H).norm() / H.norm()
        assert off < 3 * spread / 80**0.5 + 0.01, size
        errors[size] = float(spread)
    assert errors[24] < 0.6 * errors[6]


def test_the_draw_is_a_rows_own(problem):
    """Whatever the order of the rows and however many are taken at once."""
    p = problem("mlp", torch.float64)
    own, order = keys(0), np.random.default_rng(1).permutation(9)
    expected = matrix_of(p, FisherSample(p.stream(keys=own), 12))
    for options in ({"batch_size": 1}, {"batch_size": 9}, {"index": order}):
        found = matrix_of(p, FisherSample(p.stream(keys=own, **options), 12))
        assert relative(found, expected) < 1e-10, options
    assert relative(matrix_of(p, FisherSample(p.stream(keys=keys(5)), 12)), expected) > 0.01


@pytest.mark.parametrize("fisher", ["exact", "sampled"])
@pytest.mark.parametrize("name", ["mlp", "conv", "tokens", "tied"])
def test_columns_that_a_pass_left_in_memory_are_not_pulled_again(name, fisher, problem, monkeypatch):
    """And are those that a pass of their own gives, in the same order; to the last digit whatever was left."""
    p = problem(name, torch.float64)
    for size in (10_000, 14):
        fresh = FisherSample(p.stream(fisher, cache_bytes=0), size)
        expected = list(fresh.batches())
        stream = p.stream(fisher)
        for c in range(2):
            list(stream.columns(c))
        with monkeypatch.context() as patch:
            if size > 14:
                patch.setattr(p.engine, "capture", None)
            found = list(FisherSample(stream, size).batches())
        with monkeypatch.context() as patch:
            patch.setattr(FisherSample, "_stretches", lambda self, c, rows: [(None, slice(0, len(rows)))])
            pulled = list(fresh.batches())
        order = [[row for _, rows in some for row in rows] for some in (found, expected, pulled)]
        assert order[0] == order[1] == order[2]
        for block in range(len(p.engine.blocks)):
            own, same, target = (
                torch.cat([batch[block][0].matrix() for batch, _ in some]) for some in (found, expected, pulled)
            )
            assert torch.equal(own, same)
            torch.testing.assert_close(own, target, rtol=1e-9, atol=1e-12)


def test_rows_without_curvature_are_never_drawn(problem):
    p = problem("mlp", torch.float64)
    weights = np.array([0.0, 3.0, 0.0, 3.0, 0.0, 3.0, 0.0, 0.0, 0.0])
    for size in (3, 10_000):
        sample = FisherSample(p.stream(row_weights=weights), size)
        drawn = np.concatenate([rows for _, rows in sample.batches()])
        assert set(drawn) <= {1, 3, 5}
        assert len(drawn)
    assert not list(FisherSample(p.stream(row_weights=np.zeros(9)), 5).batches())


@pytest.mark.parametrize("size", [1, 3, 20, 55])
def test_probabilities_sum_to_the_number_of_columns(size, monkeypatch):
    """Of squares over many orders, some zero, looked at a few at a time: against a bisection."""
    rng = np.random.default_rng(0)
    squares = [np.exp(4 * rng.normal(size=n)) * (rng.random(n) < 0.8) for n in (40, 35)]
    joined = np.concatenate(squares)
    assert np.count_nonzero(joined) == 56
    low, high = 0.0, 1e9
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(1, middle * joined).sum() < size else (low, middle)
    monkeypatch.setattr(_fisher_sample, "_ROWS", 7)
    assert _fisher_sample._scale(squares, size) == pytest.approx(low, rel=1e-9)
    assert _fisher_sample._scale(squares, 56) == np.inf
    assert _fisher_sample._scale([np.zeros(3)], 2) == 0
