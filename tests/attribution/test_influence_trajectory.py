"""Damping of a recorded training in influence functions, against the dense float64 reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch import NeuralNetRegressor
from torch import nn

from sklearn_source import InfluenceFunctions, SourceAttribution, TracIn, TrajectoryRecorder
from tests._methods import apart, joint
from tests.attribution._runs import STEPS, TOLERANCE, Hyper, Run, relative
from tests.attribution.test_adaptive_reference import IN_THE_METRIC, OPTIMIZERS, adaptive_run, metric_segment, moment_at
from tests.reference import influence_scores
from tests.reference._factors import scatter_blocks
from tests.reference._metric import metric_block

KINDS = pytest.mark.parametrize("kind", ["mlp", "regressor", "conv"])


def linear_net(**options):
    module = nn.Linear(3, 1, bias=False, dtype=torch.float64)
    return NeuralNetRegressor(module, **{"max_epochs": 2, "train_split": None, "verbose": 0, **options})


def regression():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20, 3))
    return X, X @ rng.normal(size=(3, 1)) + rng.normal(size=(20, 1))


def scores(run, curvature="ekfac", **options):
    method = InfluenceFunctions(curvature=apart(curvature) if isinstance(curvature, str) else curvature, **options)
    return method.fit(run.net, run.X, run.y).transform(run.X_query)


def dense_scores(run, added):
    """With the whole matrix, and one number per parameter element added to its diagonal."""
    H = run.curvature([(run.params(run.trajectory.n_steps), 1.0)], "exact")
    gradients = run.gradients(run.trajectory.n_steps)
    return -run.queries() @ torch.linalg.solve(H + torch.diag(added), gradients.T) / len(run.X)


@IN_THE_METRIC
def test_in_the_metric_of_the_optimizer(kind, dtype, name):
    """``P^1/2 (P^1/2 H P^1/2 + coupled P + decoupled + 1/h)^-1 P^1/2``, EK-FAC of what is in it."""
    r = adaptive_run(kind, dtype, name)
    segment = metric_segment(r, name, 0, STEPS)
    last = metric_segment(r, name, STEPS - 4, STEPS, "right")
    segment.preconditioner, segment.columns, segment.weights = last.preconditioner, last.columns[-1:], [1.0]
    blocks = [metric_block(segment, *block) for block in zip(segment.indices, segment.kept)]
    shift = 1 / segment.h + segment.decoupled
    root = torch.diag(segment.preconditioner.sqrt())
    inverse = root @ scatter_blocks(blocks, [b.matrix(lambda s: 1 / (s + shift)) for b in blocks]) @ root
    expected = -r.queries() @ inverse @ r.gradients(STEPS).T / len(r.X)
    assert relative(scores(r), expected) < TOLERANCE[dtype]
    assert relative(scores(r, damping="trajectory"), expected) < TOLERANCE[dtype]


@KINDS
@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_the_whole_matrix_in_the_metric(kind, name):
    r = adaptive_run(kind, "float64", name)
    _, coupled, decoupled, _ = OPTIMIZERS[name]
    moment = moment_at(r, name, STEPS)
    P = torch.where(moment > 0, 1 / (moment.sqrt() + 1e-8), 1e-30)
    expected = dense_scores(r, coupled + (decoupled + 1 / (0.01 * STEPS)) / P)
    assert relative(scores(r, curvature="exact"), expected) < 1e-7
    assert relative(scores(r, curvature=joint()), expected) < 1e-6


@KINDS
@pytest.mark.parametrize("curvature", ["exact", "ekfac", "coupled"])
def test_every_parameter_has_the_rate_and_decay_of_its_group(kind, curvature):
    groups = {"0.*": {"lr": 0.02, "weight_decay": 0.1}, "*bias": {"weight_decay": 0.0}}
    r = Run(kind, "float64", Hyper(momentum=0.5, weight_decay=0.02, groups=groups))
    added = r.flat("added", lambda n: 1 / r.rate(n, 0, STEPS) + r.option("weight_decay", n))
    if curvature == "ekfac":
        H = r.curvature([(r.params(STEPS), 1.0)])
        each = [float(added[block.index.flatten()[0]]) for block in H]
        expected = influence_scores(H, r.queries(), r.gradients(STEPS), each)
        found = scores(r)
    else:
        expected = dense_scores(r, added)
        found = scores(r, curvature=curvature if curvature == "exact" else joint())
    assert relative(found, expected) < 1e-6


def test_what_never_moved_has_no_influence():
    """Its rate is zero, and so is its part of every score."""
    r = Run("regressor", "float64", Hyper(groups={"0.*": {"lr": 0.0}}))
    for curvature in ("ekfac", "exact"):
        found = scores(r, curvature=curvature)
        assert relative(found, scores(r, curvature=curvature, layers=["2"])) < 1e-9
        assert not scores(r, curvature=curvature, layers=["0"]).any()
    assert np.isinf(InfluenceFunctions(layers=["0"]).fit(r.net, r.X, r.y).damping_["0"])


@pytest.mark.parametrize("curvature", ["exact", "ekfac"])
@pytest.mark.parametrize("second", ["SGD", "AdamW", "Adam"])
def test_stages_add_up(second, curvature):
    """``H + rho / P + 1 / (sum_l h_l P_l)``, the decay that of the last stage."""
    X, y = regression()
    torch.manual_seed(0)
    net = linear_net(callbacks=[TrajectoryRecorder()], lr=0.02, optimizer__weight_decay=0.1).fit(X, y)
    net.optimizer = getattr(torch.optim, second)
    net.set_params(lr=0.01, max_epochs=4)
    net.initialize_optimizer()
    net.optimizer_.param_groups[0]["weight_decay"] = 0.3
    net.partial_fit(X, y)
    P, rho = np.ones(3), 0.3
    if second != "SGD":
        P = 1 / (np.sqrt(net.optimizer_.state[net.module_.weight]["exp_avg_sq"].numpy()[0] / (1 - 0.999**4)) + 1e-8)
        rho = 0.3 if second == "Adam" else 0.3 / P
    moved = 2 * 0.02 + 4 * 0.01 * P
    residual = y - net.predict(X)
    if curvature == "exact":
        inverse = np.linalg.inv(2 / 20 * X.T @ X + np.diag(rho + 1 / moved))
    else:  # one output: in the metric EK-FAC is the matrix in its eigenbasis, what is added its diagonal there
        root = np.diag(moved**0.5)
        inverse = root @ np.linalg.inv(root @ (2 / 20 * X.T @ X + np.diag(rho * np.ones(3))) @ root + np.eye(3)) @ root
    found = InfluenceFunctions(curvature=curvature).fit(net, X, y).transform(X[:4])
    assert relative(found, 2 / 20 * X[:4] @ inverse @ X.T * residual[:, 0]) < 1e-6


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_short_trainings_are_tracin(optimizer):
    """Where nothing is lost on the way the damping is all there is, as for SOURCE and TracIn."""
    hyper = Hyper(lr=1e-6, optimizer=optimizer, weight_decay=0.1)
    r = Run("mlp", "float64", hyper)
    found = scores(r)
    for method in (TracIn(), SourceAttribution(n_segments=1)):
        other = method.fit(r.net, r.X, r.y).transform(r.X_query)
        # P is that of the last step here, and a mean over checkpoints there.
        assert relative(found, other) < (1e-3 if optimizer == "SGD" else 0.3)


def test_the_default_is_that_of_the_record_where_there_is_one():
    X, y = regression()
    recorded = linear_net(callbacks=[TrajectoryRecorder()]).fit(X, y)
    for net, name in ((recorded, "trajectory"), (linear_net().fit(X, y), "mean_eigenvalue")):
        expected = InfluenceFunctions(damping=name).fit(net, X, y).transform(X[:3])
        np.testing.assert_array_equal(InfluenceFunctions().fit(net, X, y).transform(X[:3]), expected)
    # An optimizer whose steps have no known rate.
    other = linear_net(callbacks=[TrajectoryRecorder()], optimizer=torch.optim.Rprop).fit(X, y)
    expected = InfluenceFunctions(damping="mean_eigenvalue").fit(other, X, y).transform(X[:3])
    np.testing.assert_array_equal(InfluenceFunctions().fit(other, X, y).transform(X[:3]), expected)
    with pytest.raises(ValueError, match="trained with Rprop"):
        InfluenceFunctions(damping="trajectory").fit(other, X, y)


def test_without_a_record_there_is_no_damping_of_it():
    X, y = regression()
    with pytest.raises(ValueError, match="damping='trajectory' needs the record of the training"):
        InfluenceFunctions(damping="trajectory").fit(linear_net().fit(X, y), X, y)
    trained = InfluenceFunctions(linear_net(), damping="trajectory", random_state=0).fit(X, y)  # which records it
    assert list(trained.damping_.values()) == pytest.approx([1 / 0.02])
