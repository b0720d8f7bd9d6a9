"""Removal of the strongest rows: against loops, on additive worlds where every effect is known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.utils import Bunch
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_source.metrics import subset_removal_score, top_k_removals
from sklearn_source.retraining import retrain_without
from tests._nets import make_net


def world(seed=0, n_query=7, n_train=25, k=(2, 6), n_repeats=3, noise=0.0, measurement="prediction", **options):
    """A truth of additive effects, made as a retraining without groups would be."""
    rng = np.random.default_rng(seed)
    effects = rng.normal(size=(n_query, n_train))
    removed = top_k_removals(effects, k, **options)
    masks = np.ones((1 + len(removed), n_train), dtype=bool)
    for mask, rows in zip(masks[1:], removed.values()):
        mask[rows] = False
    outputs = (masks @ effects.T)[:, None] + noise * rng.normal(size=(len(masks), n_repeats, n_query))
    truth = Bunch(masks=masks, outputs=outputs, names=["all", *removed], measurement=measurement)
    return effects, removed, truth


def test_the_groups_are_the_strongest_rows_and_random_ones():
    effects, removed, _ = world(n_random=4)
    assert len(removed) == 2 * (7 + 4)
    for k in (2, 6):
        for q in range(7):
            assert set(removed[f"query {q} top {k}"]) == set(np.argsort(-effects[q])[:k])
        for i in range(4):
            assert len(set(removed[f"random {k} {i}"])) == k
    again = top_k_removals(-effects, (2, 6), n_random=4)
    np.testing.assert_array_equal(again["random 6 3"], removed["random 6 3"])


def test_changes_are_the_sums_of_the_effects_removed():
    effects, removed, truth = world()
    found = subset_removal_score(truth)
    assert list(found.k) == [2, 6]
    for i, k in enumerate((2, 6)):
        own = [np.sort(effects[q])[-k:].sum() for q in range(7)]
        np.testing.assert_allclose(found.per_query_change[i], own)
        assert found.change[i] == pytest.approx(np.mean(own))
        by_chance = [effects[:, removed[f"random {k} {j}"]].sum(1) for j in range(5)]
        assert found.random_change[i] == pytest.approx(np.mean(by_chance))
        low, high = (end[i] for end in found.change_interval)
        assert (low + high) / 2 == pytest.approx(np.mean(own))
        assert (high - low) / 2 == pytest.approx(2.446912 * np.std(own, ddof=1) / np.sqrt(7), rel=1e-5)
    assert found.score == pytest.approx(np.mean(found.change - found.random_change))
    assert found.score_interval[0] < found.score < found.score_interval[1]
    assert np.isnan(found.flip_rate).all()


def test_flips_are_a_count_over_repeats():
    _, removed, truth = world(noise=2.0, n_repeats=5, measurement="log_odds")
    found = subset_removal_score(truth)
    names = truth.names
    above = [q for q in range(7) if truth.outputs[0, :, q].mean() > 0]
    assert 0 < len(above) < 7
    for i, k in enumerate((2, 6)):
        rates = [np.mean(truth.outputs[names.index(f"query {q} top {k}"), :, q] <= 0) for q in above]
        assert found.flip_rate[i] == pytest.approx(np.mean(rates))
        rates = [np.mean([truth.outputs[names.index(f"random {k} {j}"), :, q] <= 0 for j in range(5)]) for q in above]
        assert found.random_flip_rate[i] == pytest.approx(np.mean(rates))
    assert 0 < found.random_flip_rate[1] < found.flip_rate[1]
    higher = subset_removal_score(truth, threshold=1.5)
    above = [q for q in range(7) if truth.outputs[0, :, q].mean() > 1.5]
    rates = [np.mean(truth.outputs[names.index(f"query {q} top 2"), :, q] <= 1.5) for q in above]
    assert higher.flip_rate[0] == pytest.approx(np.mean(rates))
    assert np.isnan(subset_removal_score(truth, threshold=None).flip_rate).all()


def test_groups_with_other_names_and_orders():
    _, removed, truth = world(n_random=2)
    expected = subset_removal_score(truth)
    order = np.random.default_rng(0).permutation(len(truth.masks))
    queries = np.array([int(n.split()[1]) if n.startswith("query") else -1 for n in truth.names])[order]
    shuffled = Bunch(masks=truth.masks[order], outputs=truth.outputs[order])
    found = subset_removal_score(shuffled, queries=queries[~shuffled.masks.all(1)])
    np.testing.assert_allclose(found.per_query_change, expected.per_query_change)
    np.testing.assert_allclose(found.random_change, expected.random_change)


def test_one_group_per_query_needs_no_names():
    effects, _, truth = world(k=3, n_random=0)
    found = subset_removal_score(Bunch(masks=truth.masks, outputs=truth.outputs))
    np.testing.assert_allclose(found.per_query_change[0], np.sort(effects)[:, -3:].sum(1))
    assert np.isnan(found.random_change).all()
    assert found.score == pytest.approx(found.change[0])


def test_missing_queries_are_left_out():
    _, _, truth = world(k=(2, 6), n_random=0)
    keep = [i for i, name in enumerate(truth.names) if name not in ("query 0 top 2", "query 3 top 2", "query 3 top 6")]
    few = Bunch(masks=truth.masks[keep], outputs=truth.outputs[keep], names=[truth.names[i] for i in keep])
    found, whole = subset_removal_score(few), subset_removal_score(truth)
    assert np.isnan(found.per_query_change[0, [0, 3]]).all()
    assert found.change[0] == pytest.approx(whole.per_query_change[0, [1, 2, 4, 5, 6]].mean())
    assert found.change[1] == pytest.approx(whole.per_query_change[1, [0, 1, 2, 4, 5, 6]].mean())


def test_on_a_retraining():
    rng = np.random.default_rng(0)
    y = np.arange(24) % 2
    X = (rng.normal(size=(24, 2)) + 1.5 * (2 * y[:, None] - 1)).astype(np.float32)
    net = make_net(
        NeuralNetClassifier, module__n_outputs=2, criterion=nn.CrossEntropyLoss, recorded=False, max_epochs=10
    ).fit(X, y)
    removed = top_k_removals((y[:4, None] == y).astype(float), 8, n_random=2)
    truth = retrain_without(net, X, y, X[:4], removed=removed, n_repeats=2, random_state=0)
    found = subset_removal_score(truth)
    assert truth.measurement == "log_odds"
    assert found.change[0] > found.random_change[0]  # 8 of the 12 rows of its class against 8 of all
    expected = truth.mean()[0] - truth.mean()[1:5]
    np.testing.assert_allclose(found.per_query_change[0], np.diag(expected), rtol=1e-6)


@pytest.mark.parametrize(
    "change, options, message",
    [
        (lambda t: t.update(masks=t.masks[1:], outputs=t.outputs[1:]), {}, "make it with retrain_without"),
        (lambda t: t.update(masks=t.masks[:1], outputs=t.outputs[:1]), {}, "make it with retrain_without"),
        (lambda t: t.update(names=None), {}, "top_k_removals, or pass queries="),
        (lambda t: t.update(names=[n.replace("query 3", "query 30") for n in t.names]), {}, "got one of query 30"),
        (lambda t: None, {"queries": [0]}, "expected queries as 24 integers"),
        (lambda t: None, {"queries": np.full(24, -1)}, "random rows"),
        (lambda t: None, {"threshold": "high"}, "threshold"),
        (lambda t: None, {"confidence": 0}, "confidence"),
    ],
)
def test_bad_input(change, options, message):
    _, _, truth = world()
    change(truth)
    with pytest.raises(ValueError, match=message):
        subset_removal_score(truth, **options)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"k": 25}, "expected k to be an integer from 1 to"),
        ({"k": [2, 0]}, "expected k to be"),
        ({"k": []}, "at least one k"),
        ({"n_random": -1}, "n_random"),
        ({"scores": np.zeros(4)}, "n_query, n_train"),
        ({"scores": np.full((2, 4), np.nan)}, "finite"),
    ],
)
def test_bad_groups(options, message):
    with pytest.raises(ValueError, match=message):
        top_k_removals(**{"scores": np.zeros((2, 25)), "k": 2, **options})
