"""Subsets trained for as many steps as all rows."""

from __future__ import annotations

import numpy as np
import pytest

from sklearn_source.retraining import retrain_on_subsets
from sklearn_source.retraining._plan import BatchPlan, Unit
from tests.retraining._problems import assert_same_states, both, make_net, rows, task_of


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("n_own", [7, 20, 39, 40])
def test_rows_are_dealt_equally_often_in_as_many_steps(n_own, shuffle):
    plan = BatchPlan(40, 6, shuffle, False, 3, equal_steps=True)
    own = np.sort(np.random.default_rng(0).permutation(40)[:n_own])
    epochs = [plan.batches(Unit(0, 0, own, 5), epoch) for epoch in range(3)]
    assert [[n for _, n in epoch] for epoch in epochs] == [[6, 6, 6, 6, 6, 6, 4]] * 3
    dealt = np.bincount(np.concatenate([batch for epoch in epochs for batch, _ in epoch]), minlength=40)
    assert dealt.sum() == 120
    assert not np.delete(dealt, own).any()
    assert np.ptp(dealt[own]) <= 1


@pytest.mark.parametrize("shuffle", [False, True])
def test_halves_are_trained_as_in_twice_the_epochs(shuffle):
    X, y, X_query = rows(n_rows=32)
    options = {"n_subsets": 2, "n_repeats": 2, "random_state": 0}
    nets = [make_net(max_epochs=n, iterator_train__shuffle=shuffle) for n in (3, 6)]
    equal = retrain_on_subsets(nets[0], X, y, X_query, equal_steps=True, **options)
    longer = retrain_on_subsets(nets[1], X, y, X_query, **options)
    np.testing.assert_allclose(equal.outputs, longer.outputs, rtol=1e-5, atol=1e-6)
    assert equal.settings["equal_steps"]
    assert not longer.settings["equal_steps"]
    assert np.abs(equal.outputs - retrain_on_subsets(nets[0], X, y, X_query, **options).outputs).max() > 1e-3


def test_both_engines_train_the_same():
    X, y, X_query = rows()
    masks = np.random.default_rng(0).random((3, len(X))) < 0.4
    task, units = task_of(make_net(), X, y, X_query, masks=masks[:1], equal_steps=True)
    assert_same_states(*both(task, units))


def test_one_batch_of_all_rows_stays_one_step():
    own = np.array([1, 4])
    plan = BatchPlan(5, -1, False, False, 2, equal_steps=True)
    ((batch, _),) = plan.batches(Unit(0, 0, own, 0), 1)
    np.testing.assert_array_equal(batch, own)


def test_what_is_kept_of_the_one_does_not_serve_the_other(tmp_path):
    X, y, X_query = rows()
    net, options = make_net(max_epochs=1), {"n_subsets": 2, "n_repeats": 1, "random_state": 0, "cache": tmp_path}
    first = retrain_on_subsets(net, X, y, X_query, **options)
    second = retrain_on_subsets(net, X, y, X_query, equal_steps=True, **options)
    assert second.settings["from_cache"] == 0
    with pytest.raises(ValueError, match="expected a retraining of the same network"):
        first.merge(second)


def test_small_subsets_fill_a_batch():
    X, y, X_query = rows()
    net = make_net(batch_size=30, max_epochs=1, iterator_train__drop_last=True)
    with pytest.raises(ValueError, match="nothing would be trained"):
        retrain_on_subsets(net, X, y, X_query, n_subsets=1, n_repeats=1, random_state=0)
    assert (
        retrain_on_subsets(net, X, y, X_query, n_subsets=1, n_repeats=1, random_state=0, equal_steps=True).n_subsets
        == 1
    )


def test_the_switch_is_one():
    X, y, X_query = rows()
    with pytest.raises(ValueError, match="equal_steps"):
        retrain_on_subsets(make_net(), X, y, X_query, equal_steps="all")
