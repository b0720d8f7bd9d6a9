"""Curvature across layers, against dense matrices: through whole methods, on recorded trainings."""

from __future__ import annotations

import functools

import pytest

from sklearn_source import InfluenceFunctions, SourceAttribution
from sklearn_source.curvature import EKFAC
from tests._methods import apart, joint
from tests.attribution import _layers  # noqa: F401 (adds networks with attention to the kinds)
from tests.attribution._runs import STEPS, Hyper, Run, relative
from tests.attribution.test_adaptive_reference import adaptive_run, metric_segment
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
    *((kind, "SGD", n_segments) for kind in ("mlp", "conv", "attention") for n_segments in (1, 3)),
    *((kind, "AdamW", 3) for kind in ("mlp", "conv", "attention")),
    ("mlp", "AdamW", 1),
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
    assert relative(found(coupling(0, "auto")), found(coupling(0))) < 1e-6  # kept columns, where all of them fit
    if optimizer != "groups":  # one matrix has one decay
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
