"""SOURCE against the dense float64 reference, on recorded trainings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sklearn_source import SourceAttribution
from sklearn_source.trajectory import Trajectory
from tests._methods import apart
from tests.attribution._runs import (
    BATCH,
    STEPS,
    TOLERANCE,
    Hyper,
    Run,
    make_rows,
    relative,
)  # fmt: skip
from tests.reference import source_scores

ALL_KINDS = ("mlp", "regressor", "conv")
KINDS = pytest.mark.parametrize("kind", ALL_KINDS)
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
# Where a training each is made: every hyper-parameter meets both networks and both precisions, which meet above.
NETWORKS = pytest.mark.parametrize(("kind", "dtype"), [("mlp", "float32"), ("conv", "float64")])
RULES = ("trapezoid", "right")


def scores(run, curvature="ekfac", n_segments=3, **options):
    curvature = apart(curvature) if isinstance(curvature, str) else curvature
    estimator = SourceAttribution(curvature=curvature, n_segments=n_segments, **options).fit(run.net, run.X, run.y)
    found = estimator.transform(run.X_query)
    assert found.shape == (len(run.X_query), len(run.X))
    assert found.dtype == np.float32
    return found


def test_the_recorded_steps_are_those_the_tests_assume(run):
    assert [c.step for c in run().trajectory.checkpoints] == [0, 4, 8, 12, 16, 20, STEPS]


# Every two of network, number of segments, quadrature and precision meet; none of them asks which the others are.
CASES = [
    *(("float64", kind, n, RULES[(i + n) % 2]) for i, kind in enumerate(ALL_KINDS) for n in (1, 2, 3)),
    ("float32", "mlp", 1, "right"),
    ("float32", "regressor", 2, "trapezoid"),
    ("float32", "conv", 3, "right"),
]


@pytest.mark.parametrize(("dtype", "kind", "n_segments", "quadrature"), CASES)
def test_segments_and_quadrature(kind, dtype, n_segments, quadrature, run):
    r = run(kind, dtype, momentum=0.5, weight_decay=0.02)
    found = scores(r, n_segments=n_segments, quadrature=quadrature)
    assert relative(found, r.source(n_segments, quadrature=quadrature)) < TOLERANCE[dtype]


@KINDS
@DTYPES
@pytest.mark.parametrize("quadrature", ["trapezoid", "right"])
def test_one_network_at_the_mean_parameters(kind, dtype, quadrature, run):
    r = run(kind, dtype, momentum=0.5, weight_decay=0.02)
    options = {"quadrature": quadrature, "averaging": "parameters"}
    assert relative(scores(r, n_segments=2, **options), r.source(2, **options)) < TOLERANCE[dtype]


@pytest.mark.parametrize(
    ("dtype", "kind", "curvature"),
    [
        *(("float64", kind, c) for kind in ALL_KINDS for c in ("kfac", "diagonal", "identity", "exact")),
        *(("float32", kind, c) for kind, c in (("mlp", "kfac"), ("conv", "diagonal"), ("regressor", "identity"))),
        ("float32", "mlp", "exact"),
    ],
)
def test_curvatures(kind, dtype, curvature, run):
    r = run(kind, dtype, momentum=0.5, weight_decay=0.02)
    assert relative(scores(r, n_segments=2, curvature=curvature), r.source(2, kind=curvature)) < TOLERANCE[dtype]


@KINDS
@DTYPES
def test_empirical_fisher(kind, dtype, run):
    r = run(kind, dtype, momentum=0.5, weight_decay=0.02)
    assert (
        relative(scores(r, n_segments=2, curvature=apart(fisher="empirical")), r.source(2, fisher="empirical"))
        < TOLERANCE[dtype]
    )


def falling(step):
    return 1.0 - step / (2 * STEPS)


def cut(step):
    return 1.0 if step < 13 else 0.1


HYPERS = {
    "plain": {},
    "weight decay": {"weight_decay": 0.3},
    "momentum": {"momentum": 0.9, "lr": 0.01},
    "dampening": {"momentum": 0.8, "dampening": 0.4},
    "nesterov": {"momentum": 0.7, "nesterov": True, "weight_decay": 0.1},
    "falling rate": {"schedule": falling, "momentum": 0.5},
    "rate cut within a segment": {"schedule": cut, "weight_decay": 0.1},
}


@NETWORKS
@pytest.mark.parametrize("name", HYPERS)
def test_hyper_parameters(kind, dtype, name, run):
    r = run(kind, dtype, **HYPERS[name])
    assert relative(scores(r), r.source()) < TOLERANCE[dtype]


GROUPS = {
    "biases without decay": {"*.bias": {"weight_decay": 0.0}},
    "rates by layer": {"0.*": {"lr": 0.01}},
    "everything": {"0.weight": {"lr": 0.01}, "*.bias": {"weight_decay": 0.0, "lr": 0.1}, "3.*": {"weight_decay": 0.7}},
}


@NETWORKS
@pytest.mark.parametrize("name", GROUPS)
def test_parameter_groups(kind, dtype, name):
    r = Run(kind, dtype, Hyper(momentum=0.5, weight_decay=0.2, groups=GROUPS[name]))
    assert relative(scores(r), r.source()) < TOLERANCE[dtype]


def test_exact_curvature_with_rates_that_differ():
    r = Run("mlp", "float64", Hyper(groups={"0.*": {"lr": 0.01}, "*.bias": {"lr": 0.15}}))
    assert relative(scores(r, curvature="exact", n_segments=2), r.source(2, kind="exact")) < 1e-7
    r = Run("mlp", "float64", Hyper(weight_decay=0.1, groups={"*.bias": {"weight_decay": 0.0}}))
    with pytest.raises(ValueError, match="couples all parameters"):
        scores(r, curvature="exact")


def test_a_layer_that_did_not_move_takes_no_part():
    r = Run("mlp", "float64", Hyper(momentum=0.5, weight_decay=0.1, groups={"0.*": {"lr": 0.0}}))
    expected = scores(r, layers=["2", "3"])
    found = scores(r)
    assert np.isfinite(found).all()
    assert relative(found, expected) < 1e-6


@pytest.mark.parametrize("layers", ["3", ["0", "2.weight"]], ids=str)
def test_chosen_layers_are_the_whole_network_to_the_method(layers, run):
    r = run("mlp", weight_decay=0.1)
    names = ["3.weight", "3.bias"] if layers == "3" else ["0.weight", "0.bias", "2.weight"]
    keep = torch.cat([r.layout.indices(name).flatten() for name in names]).sort().values
    segments = [r.segment(a, a + 12) for a in (0, 12)]
    for segment in segments:
        segment.row_gradients = [g[:, keep] for g in segment.row_gradients]
        place = torch.full((r.layout.size,), -1)
        place[keep] = torch.arange(len(keep))
        segment.curvature = [b for b in segment.curvature if (place[b.index] >= 0).all()]
        for block in segment.curvature:
            block.index = place[block.index]
    expected = source_scores(segments, r.queries()[:, keep])
    assert relative(scores(r, n_segments=2, layers=layers), expected) < 1e-7


class TwoStages(Run):
    """``fit`` on some rows, then ``partial_fit`` on others at another rate."""

    second_lr = 0.02

    def train(self):
        self.first, self.second = np.arange(8), np.arange(8, 12)
        self.net.fit(self.X[self.first], self.y[self.first])
        self.net.set_params(optimizer__lr=self.second_lr)
        self.net.partial_fit(self.X[self.second], self.y[self.second])

    def rule(self, name, start, end):
        return [self.hyper.lr] * 16 + [self.second_lr] * 8, start, end, self.hyper.momentum  # the velocity goes on


@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize("labels", [True, False], ids=["stage=", "recognised"])
def test_stages_with_rows_of_their_own(kind, labels):
    r = TwoStages(kind, "float64", Hyper(momentum=0.5, weight_decay=0.1))
    assert [(s.start, s.end) for s in r.trajectory.stages] == [(0, 16), (16, 24)]
    pieces = [(0, 8, r.first), (8, 16, r.first), (16, 20, r.second), (20, 24, r.second)]
    segments = [r.segment(a, b, rows=rows) for a, b, rows in pieces]
    expected = source_scores(segments, r.queries(), n_train=12)
    order = np.random.default_rng(0).permutation(12)
    stage = np.repeat([0, 1], [8, 4])[order] if labels else None
    estimator = SourceAttribution(n_segments=2, curvature=apart()).fit(r.net, r.X[order], r.y[order], stage=stage)
    assert relative(estimator.transform(r.X_query), expected[:, order]) < 1e-7
    assert [(s.stage, s.start, s.end) for s in estimator.segments_] == [(0, 0, 8), (0, 8, 16), (1, 16, 20), (1, 20, 24)]


class SameRowsTwice(Run):
    def train(self):
        self.net.set_params(max_epochs=4)
        self.net.fit(self.X, self.y).partial_fit(self.X, self.y)


def test_a_continuation_on_the_same_rows_credits_them_in_both_stages():
    r = SameRowsTwice("mlp", "float64", Hyper(lr=0.1))
    found = scores(r, n_segments=2)
    assert [(s.start, s.end) for s in r.trajectory.stages] == [(0, 12), (12, 24)]
    assert relative(found, r.source(4)) < 1e-7


def test_labels_credit_a_row_once_per_appearance():
    """Rows given twice, once per stage, share between them what they score without labels."""
    r = SameRowsTwice("mlp", "float64", Hyper(lr=0.1))
    X, y = np.concatenate([r.X, r.X]), np.concatenate([r.y, r.y])
    estimator = SourceAttribution(n_segments=2, curvature=apart()).fit(r.net, X, y, stage=np.repeat([0, 1], 12))
    each = estimator.transform(r.X_query)
    together = r.source(4).numpy()
    assert relative(each[:, :12] + each[:, 12:], together) < 1e-6
    segments = [r.segment(12, 18), r.segment(18, 24)]
    assert relative(each[:, 12:], source_scores(segments, r.queries())) < 1e-6


def test_a_trajectory_made_by_hand_and_one_from_disk_give_the_same(run, tmp_path):
    r = run("mlp", momentum=0.5, weight_decay=0.02)
    expected = scores(r)
    r.trajectory.save(tmp_path / "t")
    net = r.net
    points = r.trajectory.checkpoints
    by_hand = Trajectory.from_checkpoints(
        [{**c.parameters, **c.buffers} for c in points], [c.step for c in points], 0.05, module=net.module_,
        momentum=0.5, weight_decay=0.02, n_rows=len(r.X),
    )  # fmt: skip
    assert np.array_equal(scores(r, trajectory=str(tmp_path / "t")), expected)
    assert np.array_equal(scores(r, trajectory=by_hand), expected)
    assert BATCH * STEPS == len(r.X) * 8


def test_what_segments_say(run):
    r = run("mlp", schedule=cut, weight_decay=0.1)
    estimator = SourceAttribution(n_segments=3).fit(r.net, r.X, r.y)
    bounds = [(0, 8), (8, 16), (16, 24)]
    for summary, (start, end) in zip(estimator.segments_, bounds):
        assert (summary.stage, summary.start, summary.end) == (0, start, end)
        assert summary.checkpoints == (start, start + 4, end)
        np.testing.assert_allclose(summary.weights, [0.25, 0.5, 0.25])
        h = sum(0.05 * cut(k) for k in range(start, end))
        assert set(summary.integrated_learning_rate) == set(r.names)
        assert summary.integrated_learning_rate["3.bias"] == pytest.approx(h, rel=1e-12)
        assert summary.weight_decay["0.weight"] == pytest.approx(0.1, rel=1e-12)
        segment = r.segment(start, end)
        values = torch.cat([h * (b.eigenvalues.flatten() + 0.1) for b in segment.curvature]).numpy()
        for q, value in summary.h_sigma_quantiles.items():
            assert value == pytest.approx(float(np.quantile(values, q)), rel=1e-6)
    with_groups = Run("mlp", "float64", Hyper(weight_decay=0.2, groups={"0.*": {"lr": 0.01, "weight_decay": 0.4}}))
    (summary,) = SourceAttribution(n_segments=1).fit(with_groups.net, with_groups.X, with_groups.y).segments_
    assert summary.integrated_learning_rate == pytest.approx(
        {n: 24 * (0.01 if n.startswith("0.") else 0.05) for n in r.names}
    )
    values = []
    for block in with_groups.segment(0, 24).curvature:
        h, rho = (0.24, 0.4) if int(block.index.max()) < 25 else (1.2, 0.2)
        values.append(h * (block.eigenvalues.flatten() + rho))
    for q, value in summary.h_sigma_quantiles.items():
        assert value == pytest.approx(float(np.quantile(torch.cat(values).numpy(), q)), rel=1e-6)


def test_rows_of_queries_do_not_matter_to_fit(run):
    """Another chunk of queries, another number of them: each query's scores are its own."""
    r = run("mlp", momentum=0.5)
    estimator = SourceAttribution(n_segments=2).fit(r.net, r.X, r.y)
    X, _ = make_rows("mlp", 40, "float64", 5)
    whole = estimator.transform(X)
    parts = np.concatenate([estimator.transform(X[i : i + 7]) for i in range(0, 40, 7)])
    assert relative(parts, whole) < 1e-6


@pytest.mark.parametrize("kind", ["mlp", "regressor"])
@pytest.mark.parametrize("curvature", ["ekfac", "exact"])
def test_a_summed_loss_at_a_smaller_rate_is_the_same_training(kind, curvature, run):
    """Sums over a batch of four at a quarter of the rate and four times the decay: every step is the same."""
    mean = run(kind, momentum=0.5, weight_decay=0.02)
    reduced = {"criterion__reduction": "sum", "lr": 0.05 / BATCH, "optimizer__weight_decay": 0.02 * BATCH}
    total = Run(kind, "float64", mean.hyper, **reduced)
    for name, value in mean.params(STEPS).items():
        torch.testing.assert_close(total.params(STEPS)[name], value)
    assert relative(scores(total, curvature=curvature), scores(mean, curvature=curvature)) < 1e-6
