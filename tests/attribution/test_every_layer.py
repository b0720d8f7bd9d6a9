"""EK-FAC scores of networks of every kind of layer against the dense reference."""

from __future__ import annotations

import pytest

from sklearn_source import InfluenceFunctions, SourceAttribution
from sklearn_source.curvature import FisherStream
from sklearn_source.utils._config import DEFAULT_BYTES
from tests._methods import apart, joint
from tests.attribution._layers import LAYERS
from tests.attribution._runs import Hyper, make_net, relative
from tests.attribution.test_adaptive_reference import adaptive_run, metric_segment
from tests.reference import influence_scores
from tests.reference._metric import metric_operators, walk

pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")


@pytest.mark.parametrize("kind", LAYERS)
def test_scores_are_those_of_the_dense_reference(kind, run):
    r = run(kind, momentum=0.5)
    found = SourceAttribution(n_segments=2, curvature=apart()).fit(r.net, r.X, r.y).transform(r.X_query)
    assert relative(found, r.source(n_segments=2)) < 1e-7
    last = r.trajectory.n_steps
    for curvature in ("ekfac", "kfac"):
        estimator = InfluenceFunctions(damping=0.05, curvature=apart(curvature)).fit(r.net, r.X, r.y)
        blocks = r.curvature([(r.params(last), 1.0)], curvature)
        expected = influence_scores(blocks, r.queries(), r.gradients(last), 0.05)
        assert relative(estimator.transform(r.X_query), expected) < 1e-7, curvature


@pytest.mark.parametrize("kind", ["embedding", "encoder", "lstm", "weight-norm"])
def test_the_coupled_solve_is_that_of_the_exact_matrix(kind, run):
    r = run(kind, momentum=0.5)
    last = r.trajectory.n_steps
    estimator = InfluenceFunctions(damping=0.05, curvature=joint()).fit(r.net, r.X, r.y)
    expected = influence_scores(r.curvature([(r.params(last), 1.0)], "exact"), r.queries(), r.gradients(last), 0.05)
    assert relative(estimator.transform(r.X_query), expected) < 1e-6


def test_a_compiled_net_has_the_scores_of_the_same_net_uncompiled(run):
    r = run("mlp")
    net = make_net("mlp", "float64", Hyper(), compile=True, compile__backend="eager").fit(r.X, r.y)
    assert next(net.module_.named_parameters())[0].startswith("_orig_mod.")
    for layers in (None, ["0", "3.bias"]):
        found, expected = (
            SourceAttribution(n_segments=2, layers=layers).fit(fitted, r.X, r.y).transform(r.X_query)
            for fitted in (net, r.net)
        )
        assert relative(found, expected) < 1e-9


@pytest.mark.parametrize("kind", LAYERS)
def test_in_the_metric_of_adamw(kind):
    r = adaptive_run(kind, "float64", "AdamW")
    segments = [metric_segment(r, "AdamW", a, a + 12) for a in (0, 12)]
    expected = walk(segments, [metric_operators(s) for s in segments], r.queries())
    found = SourceAttribution(n_segments=2, curvature=apart()).fit(r.net, r.X, r.y).transform(r.X_query)
    assert relative(found, expected) < 1e-7


def test_few_rows_at_a_time_where_gradients_are_dense(run, monkeypatch):
    r = run("weight-norm", momentum=0.5)
    expected = SourceAttribution(n_segments=2).fit(r.net, r.X, r.y).transform(r.X_query)
    batches = []
    compute = FisherStream._compute
    monkeypatch.setitem(DEFAULT_BYTES, "dense_gradients", 1000)  # some rows', fewer of three Fisher columns each
    monkeypatch.setattr(
        FisherStream, "_compute", lambda s, c, start: batches.append(s.batch_size) or compute(s, c, start)
    )
    estimator = SourceAttribution(n_segments=2).fit(r.net, r.X, r.y)
    dense = 8 * sum(p.numel() for name, p in r.module64.named_parameters() if "original" in name)
    assert estimator._gradients.batch_size == 1000 // dense > 1
    assert set(batches) == {1000 // (3 * dense)}
    assert relative(estimator.transform(r.X_query), expected) < 1e-9
