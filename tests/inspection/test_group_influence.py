"""Effects of groups: sums and errors against loops, intervals in simulation, sums against retraining."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr, t
from sklearn.linear_model import LinearRegression

from sklearn_source import InfluenceFunctions
from sklearn_source.inspection import group_influence
from sklearn_source.retraining import retrain_without
from sklearn_source.utils._config import DEFAULT_BYTES
from tests._nets import make_net
from tests.inspection._known_scores import known


@pytest.fixture
def tables():
    return np.random.default_rng(0).normal(size=(3, 4, 12))  # three networks, four queries, twelve rows


GROUPS = {"first": [0, 1, 2, 3], "some": np.arange(12) % 3 == 0, "one": [7], "all": np.arange(12)}


def test_sums_and_the_jackknife_over_rows(tables):
    est, X_query = known(tables[0])
    result = group_influence(est, X_query, GROUPS)
    assert result.names == list(GROUPS)
    assert list(result.sizes) == [4, 4, 1, 12]
    for g, rows in enumerate(([0, 1, 2, 3], [0, 3, 6, 9], [7], list(range(12)))):
        for q in range(4):
            scores = tables[0, q, rows]
            assert result.influence[q, g] == pytest.approx(scores.sum())
            if len(rows) == 1:
                assert np.isnan(result.std_error_rows[q, g])
                continue
            n = len(rows)  # the sum scaled up from the others, one left out in turn
            left_out = np.array([n / (n - 1) * np.delete(scores, i).sum() for i in range(n)])
            jackknife = np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum())
            assert result.std_error_rows[q, g] == pytest.approx(jackknife)
            low, high = (end[q, g] for end in result.interval)
            assert high - low == pytest.approx(2 * t.ppf(0.975, n - 1) * jackknife)
    assert np.isnan(result.std_error_networks).all()


def test_several_networks(tables):
    ests = [known(table)[0] for table in tables]
    X_query = np.arange(4)[:, None]
    result = group_influence(ests, X_query, GROUPS, uncertainty="networks")
    for g, rows in enumerate(([0, 1, 2, 3], [0, 3, 6, 9], [7], list(range(12)))):
        sums = tables[:, :, rows].sum(2)
        np.testing.assert_allclose(result.influence[:, g], sums.mean(0))
        error = sums.std(0, ddof=1) / np.sqrt(3)
        np.testing.assert_allclose(result.std_error[:, g], error)
        np.testing.assert_allclose(result.interval[1][:, g] - sums.mean(0), t.ppf(0.975, 2) * error)
    both = group_influence(ests, X_query, GROUPS)
    rows = group_influence(ests, X_query, GROUPS, uncertainty="rows").std_error
    np.testing.assert_allclose(both.std_error, np.sqrt(result.std_error**2 + rows**2))
    a, b = rows[:, 0] ** 2, result.std_error[:, 0] ** 2
    freedom = (a + b) ** 2 / (a**2 / 3 + b**2 / 2)
    np.testing.assert_allclose(
        both.interval[1][:, 0] - both.influence[:, 0], t.ppf(0.975, freedom) * both.std_error[:, 0]
    )


def test_removal_gives_the_others_the_weight_of_the_group(tables):
    est, X_query = known(tables[0])
    result = group_influence(est, X_query, GROUPS)
    for g, rows in enumerate(([0, 1, 2, 3], [0, 3, 6, 9], [7])):
        others = np.setdiff1d(np.arange(12), rows)
        for q in range(4):
            scores = tables[0, q]
            expected = -scores[rows].sum() + len(rows) / len(others) * scores[others].sum()
            assert result.removal[q, g] == pytest.approx(expected)
    assert np.isnan(result.removal[:, 3]).all()
    several = group_influence([known(table)[0] for table in tables], X_query, GROUPS)
    alone = [group_influence(known(table)[0], X_query, GROUPS).removal for table in tables]
    np.testing.assert_allclose(several.removal, np.mean(alone, axis=0))


def test_labels_lists_and_masks_are_the_same_groups(tables):
    est, X_query = known(tables[0])
    labels = np.array(["b", "a", "b"] * 4)
    by_label = group_influence(est, X_query, labels)
    by_rows = group_influence(est, X_query, [np.flatnonzero(labels == "a"), labels == "b"])
    assert by_label.names == ["a", "b"]
    assert by_rows.names == [0, 1]
    np.testing.assert_array_equal(by_label.influence, by_rows.influence)
    np.testing.assert_array_equal(group_influence(est, X_query, labels.tolist()).influence, by_label.influence)


def test_parts_of_the_queries_give_the_same(tables, monkeypatch):
    est, X_query = known(tables[0])
    targets = np.array([1.0, -1.0, 2.0, 3.0])
    whole = group_influence(est, X_query, GROUPS, targets)
    np.testing.assert_allclose(whole.influence[:, 3], tables[0].sum(1) * targets)
    monkeypatch.setitem(DEFAULT_BYTES, "scores", 8 * 12)  # one query at a time
    parts = group_influence(est, X_query, GROUPS, targets)
    np.testing.assert_allclose(parts.influence, whole.influence)
    np.testing.assert_allclose(parts.std_error, whole.std_error)
    np.testing.assert_allclose(parts.removal, whole.removal)


def test_intervals_cover_the_effect_of_a_group_like_it():
    rng, hits = np.random.default_rng(0), []
    for _ in range(400):
        est, X_query = known(rng.normal(0.3, 1.0, size=(1, 20)))
        low, high = group_influence(est, X_query, {"g": np.arange(8)}, confidence=0.9).interval
        hits.append(low[0, 0] <= 8 * 0.3 <= high[0, 0])
    assert 0.86 <= np.mean(hits) <= 0.94


def test_sums_foretell_retraining_without_the_groups():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4)).astype(np.float32)
    y = (X @ rng.normal(size=(4, 1)) + 0.5 * rng.normal(size=(60, 1))).astype(np.float32)
    X_query = rng.normal(size=(5, 4)).astype(np.float32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = make_net(module__hidden=(), recorded=False, max_epochs=60, batch_size=60, lr=0.3).fit(X, y)
    groups = {str(g): np.arange(60) % 12 == g for g in range(12)}
    result = group_influence(InfluenceFunctions(damping=1e-6).fit(net, X, y), X_query, groups)
    effects = []
    whole = LinearRegression().fit(X, y).predict(X_query)[:, 0]
    for rows in groups.values():
        effects.append(whole - LinearRegression().fit(X[~rows], y[~rows]).predict(X_query)[:, 0])
    for q in range(5):
        assert spearmanr(result.influence[q], np.array(effects)[:, q]).statistic > 0.9
    truth = retrain_without(net, X, y, X_query, removed=groups, random_state=0)
    assert np.corrcoef(result.influence.ravel(), truth.effects().ravel())[0, 1] > 0.95
    gaps = [np.abs(foretold - truth.effects()).mean() for foretold in (-result.removal, result.influence)]
    assert gaps[0] < gaps[1]


@pytest.mark.parametrize(
    "groups, options, message",
    [
        ({"a": [12]}, {}, "group 'a' as indices from 0 to 11"),
        ({"a": np.zeros(12, bool)}, {}, "expected rows in every group"),
        ({"a": np.zeros(11, bool)}, {}, "mask of the 12"),
        ({}, {}, "at least one group"),
        ([0, 1, 2], {}, "a label for each of 12"),
        (GROUPS, {"uncertainty": "networks"}, "several estimators"),
        (GROUPS, {"uncertainty": "none"}, "expected uncertainty to be one of"),
        (GROUPS, {"confidence": 2}, "confidence"),
        (None, {}, "expected groups as a dict"),
        ({"a": []}, {}, "got none in group 'a'"),
        ([None] + ["x"] * 11, {}, "name the rows that have none"),
    ],
)
def test_bad_input(tables, groups, options, message):
    est, X_query = known(tables[0])
    with pytest.raises(ValueError, match=message):
        group_influence(est, X_query, groups, **options)


def test_estimators_of_other_rows_and_other_things(tables):
    est, X_query = known(tables[0])
    with pytest.raises(ValueError, match="same training rows"):
        group_influence([est, known(tables[0, :, :5])[0]], X_query, GROUPS)
    with pytest.raises(ValueError, match="at least one estimator"):
        group_influence([], X_query, GROUPS)
    for other in (LinearRegression(), "est", tables):
        with pytest.raises(TypeError, match="attribution method"):
            group_influence(other, X_query, GROUPS)


def test_estimators_of_the_same_rows_in_another_order():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20, 3)).astype(np.float32)
    y = X[:, :1]
    net, order = make_net(max_epochs=1).fit(X, y), rng.permutation(20)
    one, two = InfluenceFunctions().fit(net, X, y), InfluenceFunctions().fit(net, X[order], y[order])
    with pytest.raises(ValueError, match="in the same order"):
        group_influence([one, two], X[:2], {"a": [1, 2]})


def test_removal_by_a_refit():
    net, X, y = trained_with_rows()
    ests = [InfluenceFunctions(damping=damping).fit(net, X, y) for damping in (0.1, 0.3)]
    groups = {"few": [0, 1, 2], "all": np.arange(len(X))}
    result = group_influence(ests, X[:4], groups, refit=True)
    expected = np.mean([e.predict_reweighting(X[:4], groups=[[0, 1, 2]])[:, 0] for e in ests], axis=0)
    np.testing.assert_allclose(result.removal[:, 0], expected)
    assert np.isnan(result.removal[:, 1]).all()
    np.testing.assert_allclose(result.influence, group_influence(ests, X[:4], groups).influence)
    est, X_query = known(np.zeros((4, 12)))
    with pytest.raises(ValueError, match="refit=True needs estimators with predict_reweighting"):
        group_influence(est, X_query, GROUPS, refit=True)


def trained_with_rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20, 4)).astype(np.float32)
    y = X[:, :1] + 0.1 * rng.normal(size=(20, 1)).astype(np.float32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make_net().fit(X, y), X, y
