"""Networks without single rows and groups of them, against weighted training in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sklearn_source.metrics import leave_one_out_correlation
from sklearn_source.retraining import leave_one_out, retrain_without
from sklearn_source.retraining._plan import BatchPlan
from tests.reference import Recipe, measure, prediction, train
from tests.retraining._problems import (
    N_FEATURES,
    assert_same_states,
    both,
    classifier,
    double_mlp,
    make_net,
    rows,
    task_of,
)

SGD = {"optimizer__momentum": 0.9, "optimizer__weight_decay": 1e-3, "lr": 0.02, "max_epochs": 3}


def double_net(**options):
    return make_net(module=double_mlp, **{**SGD, **options})


@pytest.mark.parametrize("engine", ["vectorized", "joblib"])
def test_keeping_weights_is_training_with_a_weight_of_zero(engine):
    X, y, X_query = rows(dtype=np.float64)
    found = leave_one_out(
        double_net(), X, y, X_query, rows=[0, 7, 44], renormalize=False, random_state=5, engine=engine
    )
    assert found.settings["engine"] == engine
    assert found.names == ["all", "0", "7", "44"]
    assert len(np.unique(found.seeds)) == 1
    seed = int(found.seeds[0, 0])
    orders = [np.random.default_rng([seed, epoch]).permutation(len(X)) for epoch in range(3)]
    batches = [order[start : start + 8].tolist() for order in orders for start in range(0, len(X), 8)]
    torch.manual_seed(seed)
    module = double_mlp().eval()
    initial = {name: p.detach().clone() for name, p in module.named_parameters()}
    weights = torch.ones(4, len(X), dtype=torch.float64)
    weights[[1, 2, 3], [0, 7, 44]] = 0
    recipe = Recipe(len(batches), 0.02, momentum=0.9, weight_decay=1e-3, batches=batches)
    tensors = [torch.from_numpy(a) for a in (X, y, X_query)]
    mse = torch.nn.functional.mse_loss
    kept = train(module, initial, mse, *tensors[:2], recipe, weights)[len(batches)]
    expected = measure(module, kept, prediction(), tensors[2]).detach().numpy()
    np.testing.assert_allclose(found.outputs[:, 0], expected, rtol=1e-9)
    np.testing.assert_allclose(found.effects(), (expected[0] - expected[1:]).T, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("renormalize", [True, False])
@pytest.mark.parametrize("kind", ["regression", "classes"])
def test_both_engines_give_the_same(renormalize, kind):
    X, y, X_query = rows(kind)
    net = make_net(**SGD) if kind == "regression" else classifier(**SGD)
    masks = np.ones((4, len(X)), dtype=bool)
    masks[1, 3], masks[2, :5], masks[3, 20:29] = False, False, False
    task, units = task_of(
        net, X, y, X_query, masks=masks, paired=True, renormalize=renormalize, y_query=y[: len(X_query)]
    )
    assert_same_states(*both(task, units))


def test_renormalised_is_the_mean_over_those_left():
    X, y, X_query = rows(dtype=np.float64)
    net = double_net(batch_size=-1, iterator_train__shuffle=False)
    found = retrain_without(net, X, y, X_query, removed={"some": [1, 2, 30]}, random_state=0, engine="vectorized")
    rest = np.setdiff1d(np.arange(len(X)), [1, 2, 30])
    torch.manual_seed(int(found.seeds[1, 0]))
    module = double_mlp()
    optimizer = torch.optim.SGD(module.parameters(), 0.02, momentum=0.9, weight_decay=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        (module(torch.from_numpy(X[rest])) - torch.from_numpy(y[rest])).square().mean().backward()
        optimizer.step()
    expected = module(torch.from_numpy(X_query)).detach().numpy()[:, 0]
    np.testing.assert_allclose(found.outputs[1, 0], expected, rtol=1e-9)


def test_groups_in_all_forms():
    X, y, X_query = rows()
    mask = np.zeros(len(X), dtype=bool)
    mask[[4, 6]] = True
    found = [
        retrain_without(make_net(), X, y, X_query, removed=removed, random_state=0)
        for removed in ({"a": [4, 6], "b": [1]}, [[4, 6], [1]], {"a": mask, "b": np.array([1])})
    ]
    assert found[0].names == ["all", "a", "b"]
    assert found[1].names == ["all", "0", "1"]
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].outputs, other.outputs)
    top = retrain_without(make_net(), X, y, X_query, removed=np.arange(12).reshape(6, 2), random_state=0)
    assert top.masks.shape == (7, len(X))
    assert not top.masks[3, [4, 5]].any()
    assert top.effects().shape == (6, 6)


def test_a_batch_that_loses_all_its_rows_is_no_step():
    plan = BatchPlan(9, 4, True, False, 1, keep_places=True)
    X, y, X_query = rows(n_rows=9)
    net = make_net(batch_size=4)
    found = leave_one_out(net, X, y, X_query, random_state=0)
    assert "lost all its rows" in found.settings["engine_reason"]
    assert np.isfinite(found.outputs).all()
    _, units = task_of(net, X, y, X_query, masks=~np.eye(9, dtype=bool), n_repeats=1, paired=True)
    counts = [len(plan.batches(unit, 0)) for unit in units]
    alone = np.random.default_rng([units[0].seed, 0]).permutation(9)[8]
    assert counts == [2 if row == alone else 3 for row in range(9)]


def test_scores_of_the_derivative_have_slope_one_against_leave_one_out():
    """Least squares by gradient descent: the effect of a row is nearly its weight's derivative."""
    X, y, X_query = rows(dtype=np.float64)

    def linear():
        return torch.nn.Linear(N_FEATURES, 1).double()

    net = make_net(module=linear, lr=0.1, batch_size=-1, max_epochs=30)
    truth = leave_one_out(net, X, y, X_query, random_state=0, renormalize=False)
    torch.manual_seed(int(truth.seeds[0, 0]))
    module = linear().eval()
    initial = {name: p.detach().clone() for name, p in module.named_parameters()}
    tensors = [torch.from_numpy(a) for a in (X, y, X_query)]
    weights = torch.ones(len(X) + 1, len(X), dtype=torch.float64)
    weights[1:] -= 1e-5 * torch.eye(len(X), dtype=torch.float64)
    kept = train(module, initial, torch.nn.functional.mse_loss, *tensors[:2], Recipe(30, 0.1), weights)[30]
    f = measure(module, kept, prediction(), tensors[2]).detach().numpy()
    found = leave_one_out_correlation((f[0] - f[1:]).T / 1e-5, truth)
    assert found.rank > 0.98
    assert found.slope == pytest.approx(1, abs=0.2)  # leverage: removing a row does a little more than its derivative


@pytest.mark.parametrize(
    "removed, message",
    [
        ({"a": []}, "got no rows in group"),
        ({"a": np.arange(45)}, "got all rows in group"),
        ({"a": [45]}, "indices from 0 to 44"),
        ({"a": [0.5]}, "indices from 0 to 44"),
        ({"all": [1]}, "got 'all' 2 times"),
        ({1: [1], "1": [2]}, "got '1' 2 times"),
        ([[-1]], "indices from 0 to 44"),
        ([3, 4], "expected group '0' as indices"),
        ({}, "at least one group"),
        ([], "at least one group"),
        (None, "got a NoneType"),
        ("abc", "got a str"),
    ],
)
def test_bad_groups(removed, message):
    X, y, X_query = rows()
    with pytest.raises(ValueError, match=message):
        retrain_without(make_net(), X, y, X_query, removed=removed)


@pytest.mark.parametrize(
    "chosen, message",
    [([45], "indices from 0 to 44"), ([1, 1], "got 1 2 times"), ([], "at least one group"), (3, "of shape ()")],
)
def test_bad_rows(chosen, message):
    X, y, X_query = rows()
    with pytest.raises(ValueError, match=message):
        leave_one_out(make_net(), X, y, X_query, rows=chosen)
