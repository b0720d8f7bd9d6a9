"""Adaptive optimizers against the dense float64 reference, on recorded trainings."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from sklearn_source import SourceAttribution, TracIn
from tests._methods import apart
from tests.attribution._runs import TOLERANCE, Hyper, Run, relative
from tests.attribution.test_baselines_reference import dampings
from tests.reference import column_gradients, quadrature_weights, segment_operators, tracin_scores
from tests.reference._metric import MetricSegment, metric_operators, paper_operators, walk

KINDS = pytest.mark.parametrize("kind", ["mlp", "regressor", "conv"])
# (class, coupled decay, decoupled decay, options)
OPTIMIZERS = {
    "Adam": ("Adam", 0.05, 0.0, ()),
    "AdamW": ("AdamW", 0.0, 0.3, ()),
    "AMSGrad": ("Adam", 0.0, 0.0, (("amsgrad", True),)),
    "RMSprop": ("RMSprop", 0.05, 0.0, (("alpha", 0.9), ("momentum", 0.5))),
}
# Every optimizer with every network, and with each precision once.
IN_THE_METRIC = pytest.mark.parametrize(
    ("kind", "dtype", "name"),
    [
        *((kind, "float64", name) for kind in ("mlp", "regressor", "conv") for name in OPTIMIZERS),
        *((kind, "float32", name) for kind, name in zip(("mlp", "conv", "regressor", "conv"), OPTIMIZERS)),
    ],
)


@functools.cache
def adaptive_run(kind, dtype, name, **options):
    """Trained once: no test writes to it."""
    optimizer, coupled, decoupled, own = OPTIMIZERS[name]
    decay = coupled + decoupled
    return Run(kind, dtype, Hyper(lr=0.01, weight_decay=decay, optimizer=optimizer, options=own, **options))


def second_moment(name, entry):
    """The bias-corrected second moment, from what the optimizer keeps."""
    t = float(entry["step"])
    if name == "RMSprop":
        return entry["square_avg"].double() / (1 - 0.9**t)
    return entry["max_exp_avg_sq" if name == "AMSGrad" else "exp_avg_sq"].double() / (1 - 0.999**t)


def moment_at(run, name, step):
    state = next(c for c in run.trajectory.checkpoints if c.step == step).optimizer_state
    named = {n: state.get(run.renamed.get(n, n)) for n in run.names}
    shapes = run.layout.shapes
    return run.layout.flatten(
        {n: second_moment(name, s).reshape(shapes[n]) if s else torch.zeros(shapes[n]) for n, s in named.items()}
    )


def rate(run, name, start, end):
    """Steps of RMSprop are those of a corrected average, larger by the root of the correction."""
    if name == "RMSprop":
        reach = [1 - 0.5 ** (24 - k + 1) for k in range(start + 1, end + 1)]  # of a momentum of one half, up to the end
        return sum(r * 0.01 / 0.5 / (1 - 0.9**k) ** 0.5 for r, k in zip(reach, range(start + 1, end + 1)))
    return 0.01 * (end - start)


def metric_segment(run, name, start, end, quadrature="trapezoid", stage_start=0):
    _, coupled, decoupled, _ = OPTIMIZERS[name]
    steps = [s for s in sorted({s for _, s in run.at}) if start <= s <= end]
    weights = quadrature_weights(steps, quadrature)
    later = [(s, w) for s, w in zip(steps, weights) if s > stage_start and w > 0]
    moment = sum(w * moment_at(run, name, s) for s, w in later) / sum(w for _, w in later)
    columns = [column_gradients(run.module64, run.params(s), run.exact_columns, *run.rows)[0] for s in steps]
    plain = run.curvature([(run.params(end), 1.0)])
    indices = [block.index for block in plain]
    # The inputs of an embedding are one-hot: its table keeps its own coordinates.
    kept = [torch.equal(block.A, torch.diag(torch.diag(block.A))) for block in plain]
    gradients = [run.gradients(s) for s in steps]
    # Where no gradient ever came the package leaves the weights alone; a tiny rate is as good here.
    preconditioner = torch.where(moment > 0, 1 / (moment.sqrt() + 1e-8), 1e-30)
    h = rate(run, name, start, end)
    return MetricSegment(h, preconditioner, coupled, decoupled, weights, columns, gradients, indices, kept)


def scores(run, **options):
    return SourceAttribution(curvature=apart(), **options).fit(run.net, run.X, run.y).transform(run.X_query)


@IN_THE_METRIC
def test_in_the_metric_of_the_optimizer(kind, dtype, name):
    r = adaptive_run(kind, dtype, name)
    segments = [metric_segment(r, name, a, a + 12) for a in (0, 12)]
    expected = walk(segments, [metric_operators(s) for s in segments], r.queries())
    assert relative(scores(r, n_segments=2), expected) < TOLERANCE[dtype]


@KINDS
@pytest.mark.parametrize("quadrature", ["trapezoid", "right"])
def test_one_segment_and_both_quadratures(kind, quadrature):
    r = adaptive_run(kind, "float64", "AdamW")
    segments = [metric_segment(r, "AdamW", 0, 24, quadrature)]
    expected = walk(segments, [metric_operators(s) for s in segments], r.queries())
    assert relative(scores(r, n_segments=1, quadrature=quadrature), expected) < 1e-7


@KINDS
@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_as_the_paper_does(kind, name):
    r = adaptive_run(kind, "float64", name)
    segments, operators = [], []
    for start in (0, 12):
        segment = metric_segment(r, name, start, start + 12)
        steps = [start, start + 4, start + 8, start + 12]
        blocks = r.curvature([(r.params(s), w) for s, w in zip(steps, segment.weights)])
        operators.append(paper_operators(segment, blocks, dampings(blocks)))
        segments.append(segment)
    expected = walk(segments, operators, r.queries())
    assert relative(scores(r, n_segments=2, adam="paper"), expected) < 1e-7


@KINDS
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_tracin_meets_through_the_preconditioner(kind, name):
    r = adaptive_run(kind, "float64", name)
    steps = [0, 4, 8, 12, 16, 20, 24]
    rates = []
    for s in steps:
        moment = moment_at(r, name, max(s, 4))  # the initial weights have no state: that of the next checkpoint
        inside = (rate(r, name, max(s - 4, 0), s) + rate(r, name, s, min(s + 4, 24))) / 2
        rates.append(inside * torch.where(moment > 0, 1 / (moment.sqrt() + 1e-8), 0.0))
    target = r.query_target()
    queries = [r.queries(s, r.measurement(), target) for s in steps]
    expected = tracin_scores(rates, queries, [r.gradients(s) for s in steps])
    found = TracIn().fit(r.net, r.X, r.y).transform(r.X_query)
    assert relative(found, expected) < 1e-7


def test_groups_with_rates_and_decays_of_their_own():
    """A tenth of the rate is a tenth of the preconditioner, which a weight and its bias need not share."""
    groups = {"0.*": {"lr": 0.001}, "*.bias": {"weight_decay": 0.0}}
    r = adaptive_run.__wrapped__("mlp", "float64", "AdamW", groups=groups)
    segments = []
    for start in (0, 12):
        segment = metric_segment(r, "AdamW", start, start + 12)
        relative_rate = r.flat("lr", lambda n: r.option("lr", n) / 0.01)
        segment.preconditioner = segment.preconditioner * relative_rate
        segment.decoupled = r.flat("wd", lambda n: r.option("weight_decay", n)) * relative_rate
        segments.append(segment)
    expected = walk(segments, [metric_operators(s) for s in segments], r.queries())
    assert relative(scores(r, n_segments=2), expected) < 1e-7


class SGDThenAdamW(Run):
    """Two stages by two optimizers."""

    def train(self):
        self.net.set_params(max_epochs=4)
        self.net.fit(self.X, self.y)
        self.net.optimizer_ = torch.optim.AdamW(self.net.module_.parameters(), lr=0.01, weight_decay=0.3)
        self.net.partial_fit(self.X, self.y)


def test_stages_of_two_optimizers():
    r = SGDThenAdamW("mlp", "float64", Hyper(weight_decay=0.1))
    assert [(s.optimizer, s.start, s.end) for s in r.trajectory.stages] == [("SGD", 0, 12), ("AdamW", 12, 24)]
    first = r.segment(0, 12)
    second = metric_segment(r, "AdamW", 12, 24, stage_start=12)
    found = scores(r, n_segments=1)
    assert np.isfinite(found).all()
    expected = walk([first, second], [segment_operators(first), metric_operators(second)], r.queries())
    assert relative(found, expected) < 1e-7
