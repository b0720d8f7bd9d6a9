"""What removing groups of rows does: a ridge regression solved again, and dense matrices at every snapshot."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklearn_source import InfluenceFunctions, SourceAttribution, TracIn, Trajectory, TrajectoryRecorder
from sklearn_source.curvature import EKFAC, _refit
from sklearn_source.metrics import first_order_change
from tests.attribution._runs import relative

DECAY = 0.2
GROUPS = {"first": [0, 1, 2], "one": [7], "many": np.arange(12) % 2 == 0}


@pytest.fixture(scope="module")
def ridge():
    """A converged ridge regression, and what its solution on some of the rows puts out."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(12, 4))
    y = X @ rng.normal(size=(4, 1)) + 0.5 * rng.normal(size=(12, 1))
    torch.manual_seed(0)
    net = NeuralNetRegressor(
        nn.Linear(4, 1, bias=False, dtype=torch.float64), lr=0.1, max_epochs=600, batch_size=-1, train_split=None,
        optimizer__weight_decay=DECAY, verbose=0, callbacks=[TrajectoryRecorder(n_checkpoints=2)],
    ).fit(X, y)  # fmt: skip
    X_query = rng.normal(size=(3, 4))

    def solved(weights):
        H = 2 / len(X) * X.T @ (weights[:, None] * X) + DECAY * np.eye(4)
        return (X_query @ np.linalg.solve(H, 2 / len(X) * X.T @ (weights[:, None] * y)))[:, 0]

    return net, X, y, X_query, solved


def test_a_ridge_regression_is_solved_again(ridge):
    net, X, y, X_query, solved = ridge
    method = InfluenceFunctions(damping=0.0).fit(net, X, y)
    before = solved(np.ones(len(X)))
    change = method.predict_reweighting(X_query, groups=GROUPS)
    for g, rows in enumerate(GROUPS.values()):
        kept = np.ones(len(X))
        kept[rows] = 0.0
        np.testing.assert_allclose(change[:, g], solved(kept * len(X) / kept.sum()) - before, rtol=1e-4, atol=1e-7)
        summed = method.predict_reweighting(X_query, groups=[rows], renormalize=False)
        np.testing.assert_allclose(summed[:, 0], solved(kept) - before, rtol=1e-4, atol=1e-7)
    # First order is not that.
    masks = np.ones((1, len(X)), dtype=bool)
    masks[0, GROUPS["first"]] = False
    linear = first_order_change(method.transform(X_query), masks)[0]
    assert relative(linear, change[:, 0]) > 0.1


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 3), min_size=12, max_size=12).filter(lambda w: sum(w) > 1))
def test_any_weights(ridge, weights):
    net, X, y, X_query, solved = ridge
    method = InfluenceFunctions(damping=0.0).fit(net, X, y)
    change = method.predict_reweighting(X_query, weights=weights, renormalize=False)
    expected = solved(np.asarray(weights)) - solved(np.ones(len(X)))
    np.testing.assert_allclose(change[:, 0], expected, rtol=1e-4, atol=1e-7)


def deep(optimizer=torch.optim.SGD, **options):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(14, 3))
    y = (X[:, 0] * X[:, 1] > 0).astype(np.int64) + (X[:, 2] > 1)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    net = NeuralNetClassifier(
        module, criterion=nn.CrossEntropyLoss, optimizer=optimizer, max_epochs=6, batch_size=7, train_split=None,
        verbose=0, callbacks=[TrajectoryRecorder(n_checkpoints=3)], **options,
    )  # fmt: skip
    return net.fit(X, y), X, y, rng.normal(size=(4, 3))


def flat(gradients):
    return torch.cat([g.flatten() for g in gradients])


def dense_change(net, X, y, X_query, checkpoint, added, weights, names, y_after=None):
    """``-v^T (H_w + added)^-1 sum_m (w_m - 1) g_m / N`` at a checkpoint, by autograd, for classes predicted last.

    ``y_after``: other targets of the rows, whose gradients come in for the old ones.
    """
    y_after = y if y_after is None else y_after
    module = copy.deepcopy(net.module_)
    with torch.no_grad():
        classes = module(torch.as_tensor(X_query)).argmax(1)
    module.load_state_dict({**module.state_dict(), **checkpoint.parameters})
    parameters = [dict(module.named_parameters())[name] for name in names]
    H, change = 0.0, 0.0
    for x, label, other, w in zip(torch.as_tensor(X), y, y_after, weights):
        output = module(x[None])[0]
        J = torch.stack([flat(torch.autograd.grad(o, parameters, retain_graph=True)) for o in output])
        p = output.softmax(0).detach()
        H = H + w * J.T @ (torch.diag(p) - torch.outer(p, p)) @ J / len(X)
        before, after = nn.functional.one_hot(torch.tensor([label, other]), 3)
        change = change + J.T @ (w * (p - after) - (p - before)) / len(X)
    solved = torch.linalg.solve(H + torch.diag(added), change)
    values = []
    for x, label in zip(torch.as_tensor(X_query), classes):
        output = module(x[None])[0]
        others = torch.cat([output[:label], output[label + 1 :]])
        v = flat(torch.autograd.grad(output[label] - others.logsumexp(0), parameters))
        values.append(-float(v @ solved))
    return np.array(values)


def test_a_ridge_regression_is_solved_again_for_other_targets(ridge):
    net, X, y, X_query, _ = ridge
    y_train = y.copy()
    y_train[[0, 1, 2, 7]] += [[1.0], [-2.0], [0.5], [3.0]]
    H = 2 / len(X) * X.T @ X + DECAY * np.eye(4)
    slopes = X_query @ np.linalg.solve(H, 2 / len(X) * X.T)  # of the outputs on each target
    expected = slopes * (y_train - y)[:, 0]
    for method in (InfluenceFunctions(damping=0.0), InfluenceFunctions(damping=0.0, batch_size=5)):
        method.fit(net, X, y)
        change = method.predict_relabeling(X_query, y_train=y_train)
        np.testing.assert_allclose(change[:, 0], expected.sum(1), rtol=1e-4, atol=1e-7)
        change = method.predict_relabeling(X_query, y_train=y_train.ravel(), groups=GROUPS | {"many": [0, 7]})
        rows = [[0, 1, 2], [7], [0, 7]]
        np.testing.assert_allclose(change.T, [expected[:, r].sum(1) for r in rows], rtol=1e-4, atol=1e-7)


def test_other_targets_without_curvature():
    """The scores that the rows would have with the new labels, less those that they have."""
    net, X, y, X_query = deep(lr=0.5)
    changed = [2, 5, 11]
    y_train = y.copy()
    y_train[changed] = (y_train[changed] + 1) % 3
    module = net.module_
    states = [{k: v.clone() for k, v in c.parameters.items()} for c in TracIn().fit(net, X, y).trajectory_.checkpoints]
    steps = np.linspace(0, 12, len(states)).astype(int)
    trajectory = Trajectory.from_checkpoints(states, steps, 0.5, module=module, n_rows=len(X))  # which is not said
    method = TracIn(trajectory=trajectory)
    after, before = (method.fit(net, X, labels).transform(X_query) for labels in (y_train, y))
    change = method.predict_relabeling(X_query, y_train=y_train, groups=[[2, 5], [11]])
    difference = (after - before).astype(np.float64)
    expected = np.stack([difference[:, [2, 5]].sum(1), difference[:, 11]], axis=1)
    np.testing.assert_allclose(change, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW", "Adam"])
def test_dense_matrices_at_every_snapshot(optimizer):
    """Damped by what the training up to each has come to: one over the sum of rates, times its preconditioner."""
    rate, decay = {"SGD": 0.5}.get(optimizer, 0.02), 0.1
    net, X, y, X_query = deep(getattr(torch.optim, optimizer), lr=rate, optimizer__weight_decay=decay)
    method = SourceAttribution(n_segments=1, curvature=EKFAC(fisher="exact")).fit(net, X, y)
    weights = np.ones((2, len(X)))
    weights[0, [1, 4, 5]] = 0.0
    weights[1, 2:5] = [0.5, 2.0, 0.0]
    change = method.predict_reweighting(X_query, weights=weights)
    y_after = y.copy()
    y_after[[0, 6, 9]] = (y[[0, 6, 9]] + 1) % 3
    change = np.hstack([change, method.predict_relabeling(X_query, y_train=y_after)])
    trajectory = method.trajectory_
    names = list(trajectory.checkpoints[-1].parameters)
    expected = []
    scaled = weights * len(X) / weights.sum(1, keepdims=True)
    for checkpoint in trajectory.checkpoints[1:]:
        h = trajectory.integrated_learning_rate(0, checkpoint.step)[names[0]]
        if optimizer == "SGD":
            added = torch.full((sum(v.numel() for v in checkpoint.parameters.values()),), 1 / h + decay).double()
        else:
            P = []
            for name in names:
                own = checkpoint.optimizer_state[name]
                P.append(1 / ((own["exp_avg_sq"] / (1 - 0.999 ** float(own["step"]))).sqrt() + 1e-8).flatten())
            P = torch.cat(P).double()
            added = (1 / h + decay) / P if optimizer == "AdamW" else 1 / (h * P) + decay
        asked = [(weights, y) for weights in scaled] + [(np.ones(len(X)), y_after)]
        expected.append([dense_change(net, X, y, X_query, checkpoint, added, w, names, t) for w, t in asked])
    np.testing.assert_allclose(change, np.mean(expected, axis=0).T, rtol=1e-5, atol=1e-8)


def test_first_order_without_curvature_and_in_several_stages():
    net, X, y, X_query = deep()
    method = TracIn().fit(net, X, y)
    kept = np.ones((1, len(X)), dtype=bool)
    kept[0, :3] = False
    change = method.predict_reweighting(X_query, groups=[[0, 1, 2]])
    np.testing.assert_allclose(change.T, first_order_change(method.transform(X_query), kept), rtol=1e-5, atol=1e-7)
    net.partial_fit(X, y)
    staged = SourceAttribution(n_segments=1).fit(net, X, y)
    with pytest.warns(UserWarning, match="several stages"):
        change = staged.predict_reweighting(X_query, groups=[[0, 1, 2]])
    np.testing.assert_allclose(change.T, first_order_change(staged.transform(X_query), kept), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("max_rows", [12, None])
def test_columns_are_as_many_as_the_curvature_says(ridge, max_rows):
    net, X, y, X_query, solved = ridge
    method = InfluenceFunctions(damping=0.0, curvature=EKFAC(coupling=None, max_rows=max_rows)).fit(net, X, y)
    whole = method.predict_reweighting(X_query, groups=GROUPS)
    kept = np.ones(len(X))
    kept[GROUPS["first"]] = 0.0
    np.testing.assert_allclose(whole[:, 0], solved(kept / kept.mean()) - solved(np.ones(12)), rtol=1e-4, atol=1e-7)
    one = method.predict_reweighting(X_query[:1], groups=[GROUPS["one"]])
    np.testing.assert_allclose(one[0, 0], whole[0, 1], rtol=1e-6)
    few = method.set_params(curvature__max_rows=3)
    assert relative(few.predict_reweighting(X_query, groups=GROUPS), whole) > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "expected either groups, to be removed, or weights of all rows, got neither"),
        ({"groups": [[0]], "weights": np.ones(12)}, "got both"),
        ({"weights": np.ones((2, 5))}, r"expected weights of shape \(n_groups, n_train\)"),
        ({"weights": -np.ones(12)}, "finite and not negative"),
        ({"weights": np.r_[np.ones(11), 1e30]}, "weights up to 1e[+]12"),
        ({"groups": [np.ones(12, dtype=bool)]}, "rows that are left to train on"),
    ],
)
def test_what_cannot_be_asked(ridge, options, message):
    net, X, y, X_query, _ = ridge
    with pytest.raises(ValueError, match=message):
        InfluenceFunctions(damping=0.0).fit(net, X, y).predict_reweighting(X_query, **options)


def test_targets_that_cannot_be_asked_about(ridge):
    net, X, y, X_query, _ = ridge
    method = InfluenceFunctions(damping=0.0).fit(net, X, y)
    for y_train, groups, message in (
        (y, None, "expected y_train with another target than that of fit for any row, got the same ones"),
        (y + np.eye(12)[:, :1], GROUPS, "for a row of group 'one', got the same ones"),
        (y[:5], None, "expected as many targets as rows, got X with 12 rows and y with 5"),
        (np.full_like(y, np.nan), None, "NaN|loss is finite"),
        (np.hstack([y, y]), None, r"expected targets of shape \(1,\) each, got \(2,\)"),
        (3.0, None, "expected y_train, a target for each of the 12 training rows, got 3.0"),
        (None, None, "expected y_train, a target for each of the 12 training rows, got None"),
        (y + 1, {"none": []}, "expected rows in every group"),
    ):
        with pytest.raises(ValueError, match=message):
            method.predict_relabeling(X_query, y_train=y_train, groups=groups)
    classes, X, y, X_query = deep(lr=0.5)
    method = SourceAttribution(n_segments=1).fit(classes, X, y)
    before = method.transform(X_query)
    for label, message in ((7, "targets in y_train that the loss can read"), (0.5, "class labels"), ("a", "labels")):
        y_train = y.astype(object if isinstance(label, str) else type(label))
        y_train[3] = label
        with pytest.raises(ValueError, match=message):
            method.predict_relabeling(X_query, y_train=y_train)
    np.testing.assert_array_equal(method.transform(X_query), before)
    dataset = torch.utils.data.TensorDataset(torch.as_tensor(X), torch.as_tensor(y))
    with pytest.raises(TypeError, match="expected training rows given as arrays, got a dataset"):
        SourceAttribution(n_segments=1).fit(classes, dataset).predict_relabeling(X_query, y_train=y)


@pytest.mark.parametrize(("lr", "enough"), [(0.5, False), (0.01, True)])
@pytest.mark.parametrize("method", [InfluenceFunctions, SourceAttribution])
def test_where_draws_are_too_few_for_the_curvature_scores_are_summed(method, lr, enough, recwarn, monkeypatch):
    """Eighteen classes are drawn from, once for every row: as many directions as rows, of some two hundred."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 12)), np.arange(30) % 18
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        nn.Linear(12, 18, dtype=torch.float64), criterion=nn.CrossEntropyLoss, lr=lr, batch_size=-1,
        max_epochs=20, train_split=None, verbose=0, callbacks=[TrajectoryRecorder(n_checkpoints=2)],
    ).fit(X, y)  # fmt: skip
    fitted = method(random_state=0, curvature=EKFAC(max_rows=30)).fit(net, X, y)
    monkeypatch.setattr(_refit, "_TOO_MUCH", 0.3)
    recwarn.clear()
    change = fitted.predict_reweighting(X[:4], groups=[[0, 1, 2]])
    assert enough != any("sum of scores" in str(w.message) for w in recwarn)
    masks = np.ones((1, 30), dtype=bool)
    masks[0, :3] = False
    summed = first_order_change(fitted.transform(X[:4]), masks).T
    assert enough != (relative(change, summed) < 1e-6)
