"""Groups behind errors: planted in made-up scores, in digits, and their harm against sums and trainings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn
from torch.utils.data import DataLoader

from sklearn_source import AttributionEnsemble, InfluenceFunctions, SourceAttribution, TrajectoryRecorder
from sklearn_source.inspection import behaviour_groups
from sklearn_source.inspection._group_names import describe_errors, describe_rows
from sklearn_source.inspection._group_search import grow_groups, suspected
from sklearn_source.inspection._lessons import Lessons
from sklearn_source.modules import MLP
from sklearn_source.retraining import retrain_without
from tests._nets import make_net
from tests.inspection._known_scores import known
from tests.inspection._reports import classes


@pytest.fixture(scope="module")
def spoilt():
    """Digits, of which 25 eights that lie together are labelled 3."""
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    order = np.random.default_rng(3).permutation(len(X))
    X, y = X[order], y[order]
    eights = np.flatnonzero(y[:600] == 8)
    rows = eights[np.argsort(((X[eights] - X[eights[0]]) ** 2).sum(1))[:25]]
    labels = y.copy()
    labels[rows] = 3
    torch.manual_seed(3)
    net = NeuralNetClassifier(
        MLP, module__n_features=64, module__hidden=(32,), module__n_outputs=10, criterion=nn.CrossEntropyLoss, lr=0.1,
        optimizer__momentum=0.9, optimizer=torch.optim.SGD, batch_size=32, max_epochs=12, train_split=None, verbose=0,
        iterator_train__shuffle=True, callbacks=[TrajectoryRecorder(n_checkpoints=4)],
    ).fit(X[:600], labels[:600])  # fmt: skip
    est = SourceAttribution(random_state=0).fit(net, X[:600], labels[:600])
    return est, net, X[:600], labels[:600], X[600:1100], y[600:1100], rows


def test_wrong_labels_are_found_and_named(spoilt):
    est, net, X, y, X_query, y_query, rows = spoilt
    before = {name: value.clone() for name, value in net.module_.state_dict().items()}
    wrong = np.flatnonzero(net.predict(X_query) != y_query)
    state = torch.random.get_rng_state()
    found = behaviour_groups(est, X_query, y_query, class_names=[f"digit {i}" for i in range(10)], random_state=0)
    np.testing.assert_array_equal(found.errors, wrong)
    assert torch.equal(state, torch.random.get_rng_state())
    best = max(found.groups[:3], key=lambda group: len(np.intersect1d(group.rows, rows)))
    assert len(np.intersect1d(best.rows, rows)) >= 0.8 * len(rows)
    assert np.isin(best.rows, rows).mean() >= 0.6
    assert "labelled 'digit 3'" in best.description
    assert "'digit 8' taken for 'digit 3'" in best.description
    assert found.unit == "log-odds"
    assert best.error is None
    scores = est.transform(X_query, y_query).astype(np.float64)
    for group in found:
        assert set(group.queries) <= set(found.errors)
        expected = -scores[np.ix_(group.queries, group.rows)].sum()
        assert group.harm == pytest.approx(expected, rel=1e-4)
        assert group.harm > 0
        assert group.share == pytest.approx(group.harm / np.maximum(-scores[found.errors], 0).sum(), rel=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in net.module_.state_dict().items())
    again = behaviour_groups(est, X_query, y_query, n_groups=1, random_state=0)
    assert len(again) == 1
    np.testing.assert_array_equal(again[0].rows, found[0].rows)


def test_a_network_without_the_group_errs_less_there(spoilt):
    est, net, X, y, X_query, y_query, rows = spoilt
    found = behaviour_groups(est, X_query, y_query, alpha=1)
    group = max(found.groups[:3], key=lambda g: len(np.intersect1d(g.rows, rows)))
    q = group.queries
    truth = retrain_without(net, X, y, X_query[q], y_query[q], removed=[group.rows], n_repeats=2, random_state=0)
    assert truth.effects().mean() < -0.5  # having the group lowers log-odds of the right class


def test_groups_of_made_up_scores():
    rng = np.random.default_rng(0)
    scores = 0.05 * rng.normal(size=(30, 80))
    scores[:8, 5:15] -= 1.0
    scores[8:14, 40:52] -= 0.8
    est, X_query = known(scores)
    found = behaviour_groups(est, X_query, np.ones(30), n_groups=2, alpha=1)
    sets = sorted((sorted(group.rows.tolist()), sorted(group.queries.tolist())) for group in found)
    assert sets == [(list(range(5, 15)), list(range(8))), (list(range(40, 52)), list(range(8, 14)))]
    assert behaviour_groups(est, X_query, -np.ones(30), n_groups=2, alpha=1)[0].harm > 0
    # Without targets it is the push towards what was predicted.
    same = behaviour_groups(known(-scores)[0], X_query, n_groups=2, alpha=1)
    np.testing.assert_array_equal(same[0].rows, found[0].rows)
    table = found.table
    assert list(table) == [
        "group",
        "n_rows",
        "n_queries",
        "harm",
        "error",
        "p_value",
        "share",
        "explained",
        "description",
    ]
    assert list(table["n_rows"]) == [len(group.rows) for group in found]


@pytest.mark.parametrize("noise", ["normal", "uneven"])
def test_noise_makes_no_groups(noise):
    """Two seeds of ten at most give a group by chance (nominal: half a seed), where without a check nearly all do."""
    shown = {0.05: 0, 1.0: 0}
    for seed in range(10):
        rng = np.random.default_rng(seed)
        scores = rng.normal(size=(8, 40))
        if noise == "uneven":
            scores *= np.exp(rng.normal(size=40)) * np.exp(0.5 * rng.normal(size=(8, 1)))
        est, X_query = known(scores)
        for alpha in shown:
            found = behaviour_groups(est, X_query, np.ones(8), alpha=alpha, random_state=0)
            assert all(group.p_value <= alpha for group in found if alpha < 1)
            shown[alpha] += len(found) > 0
    assert shown[0.05] <= 2
    assert shown[1.0] >= 8


def test_chance_is_told():
    scores = 0.3 * np.random.default_rng(0).normal(size=(12, 60))
    scores[:6, 5:15] -= 1.0
    est, X_query = known(scores)
    (group,) = behaviour_groups(est, X_query, np.ones(12), n_groups=1, random_state=0)
    assert group.p_value == 1 / 20
    assert set(range(5, 15)) <= set(group.rows)
    assert behaviour_groups(est, X_query, np.ones(12), n_groups=1, alpha=0.2, random_state=0)[0].p_value == 1 / 5
    (unasked,) = behaviour_groups(est, X_query, np.ones(12), n_groups=1, alpha=1.0)
    assert np.isnan(unasked.p_value)
    np.testing.assert_array_equal(unasked.rows, group.rows)
    with pytest.raises(ValueError, match=r"expected alpha to be a number from 0.001 to 1, got 0"):
        behaviour_groups(est, X_query, np.ones(12), alpha=0)


def test_chance_never_prefers_a_later_group():
    """Small pure groups and large loose ones are held against chance by what orders them."""
    scores = np.random.default_rng(0).normal(size=(12, 60))
    scores[:6, 5:11] -= 4.0
    scores[6:, 20:44] -= 0.5
    est, X_query = known(scores)
    everything = behaviour_groups(est, X_query, np.ones(12), alpha=1)
    kept = behaviour_groups(est, X_query, np.ones(12), alpha=0.1, random_state=0)
    assert 0 < len(kept) < len(everything)
    for group, other in zip(kept, everything):
        np.testing.assert_array_equal(group.rows, other.rows)
    assert set(range(5, 11)) <= set(kept[0].rows)


def test_identical_errors_stay_together():
    rng = np.random.default_rng(0)
    scores = np.repeat(rng.normal(size=(6, 50)), 3, axis=0)
    est, X_query = known(scores + 1e-7 * rng.normal(size=scores.shape))
    found = behaviour_groups(est, X_query, np.ones(18), n_groups=9, alpha=1)
    assert len(found) > 1
    for group in found:
        np.testing.assert_array_equal(np.unique(group.queries // 3, return_counts=True)[1], 3)


def test_rows_that_push_residuals_both_ways_belong():
    """Marked rows learn alike; half of them have residuals of the other sign."""
    rng = np.random.default_rng(0)
    n, marked = 100, np.arange(20, 40)
    harm, taught = 0.1 * rng.normal(size=(10, n)), rng.normal(size=(n, n))
    harm[:5, marked] += np.where(marked % 2, 2.0, -0.5)
    taught[marked] += rng.normal(size=n)
    lessons, signs = Lessons.of(np.arange(n), n, taught), np.ones(10)
    largest = []
    for sizes in (None, np.arange(10, 0, -1.0)):
        groups = grow_groups(suspected(harm, harm, signs, sizes), lessons)
        pure = [group.rows for group in groups if group.respect == "learn" and np.isin(group.rows, marked).all()]
        largest.append(max(map(len, pure)))
    assert largest == [10, 20]  # where errors have no sign those that push the other way are no part


def test_a_regression_says_too_high_or_too_low():
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, size=(200, 2)).astype(np.float32)
    y = X[:, :1].copy()
    spoilt = np.flatnonzero((X[:, 0] > 0.2) & (X[:, 1] > 0.2))
    y[spoilt] += 1.5
    torch.manual_seed(0)
    net = make_net(NeuralNetRegressor, module__hidden=(16,), max_epochs=30, iterator_train__shuffle=True).fit(X, y)
    est = InfluenceFunctions().fit(net, X, y)
    X_query = rng.uniform(-1, 1, size=(80, 2)).astype(np.float32)
    found = behaviour_groups(est, X_query, X_query[:, :1], feature_names=["a", "b"], alpha=1)
    assert len(found.errors) == 20
    residual = (net.predict(X_query) - X_query[:, :1])[:, 0]
    scores = est.transform(X_query)
    for group in found:
        assert len(set(np.sign(residual[group.queries]))) == 1
        sign = np.sign(residual[group.queries[0]])
        assert group.harm == pytest.approx(sign * scores[np.ix_(group.queries, group.rows)].sum(), rel=1e-3)
        assert ("too high" if sign > 0 else "too low") in group.description
    assert np.isin(found[0].rows, spoilt).mean() > 0.6


def test_members_give_a_standard_error(spoilt):
    _, net, X, y, X_query, y_query, _ = spoilt
    est = AttributionEnsemble(InfluenceFunctions(), n_members=2, random_state=0).fit(net, X[:600], y[:600])
    group = behaviour_groups(est, X_query, y_query, n_groups=1, alpha=1)[0]
    index = np.ix_(np.arange(len(group.queries)), group.rows)
    q = group.queries
    sums = [-member.transform(X_query[q], y_query[q])[index].astype(float).sum() for member in est.members_]
    assert group.error == pytest.approx(np.std(sums, ddof=1) / np.sqrt(2), rel=1e-3)
    assert np.mean(sums) == pytest.approx(group.harm, rel=1e-3)


def test_words():
    texts = ["hello where is it"] * 5 + ["where is it", "who is it", "is it"] * 5
    rows = np.arange(5)
    assert describe_rows(rows, readable=texts).startswith("5 rows, words 'hello'")
    labels = np.repeat([1, 0], [5, 15])
    assert "labelled 'yes'" in describe_rows(rows, labels=labels, class_names=["no", "yes"])
    table = np.stack([np.r_[np.full(5, 3.0), np.zeros(15)], np.tile([0.0, 1.0], 10)], axis=1)
    assert describe_rows(rows, readable=table, feature_names=["cement", "age"]) == "5 rows, cement > 1.5"
    with pytest.raises(ValueError, match="feature_names for each of 2 columns, got 1"):
        describe_rows(rows, readable=table, feature_names=["cement"])
    assert describe_errors(np.array([1, 1, 0]), np.array([2, 2, 2])) == "1 taken for 2"


def test_no_errors_no_groups(spoilt):
    est, net, _, _, X_query, _, _ = spoilt
    found = behaviour_groups(est, X_query[:20], net.predict(X_query[:20]))
    assert len(found) == len(found.errors) == 0
    assert len(found.table["harm"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_groups": 0}, "n_groups"),
        ({"y_query": np.ones(3)}, "one target for each of 30 queries, got 3"),
        ({"y_train": np.ones(80)}, "expected X_train"),
        ({"X_train": np.ones((4, 1))}, "expected X_train of 80 rows, those of fit, got 4"),
    ],
)
def test_bad_input(options, message):
    est, X_query = known(np.ones((30, 80)))
    with pytest.raises(ValueError, match=message):
        behaviour_groups(est, X_query, **{"y_query": None, **options})


def test_rows_of_a_stream_are_asked_for():
    net, X, y, X_query, y_query = classes()
    stream = DataLoader([(torch.from_numpy(X), torch.from_numpy(y))], batch_size=None)
    streamed, est = InfluenceFunctions().fit(net, stream, None), InfluenceFunctions().fit(net, X, y)
    for rows in ({}, {"X_train": stream}):
        with pytest.raises(TypeError, match="got a stream: pass the same rows as arrays.*X_train= and y_train="):
            behaviour_groups(streamed, X_query, y_query, **rows)
    options = {"alpha": 1, "random_state": 0}
    found = behaviour_groups(streamed, X_query, y_query, X_train=X, y_train=y, **options)
    expected = behaviour_groups(est, X_query, y_query, **options)
    assert found.groups
    assert [group.description for group in found.groups] == [group.description for group in expected.groups]
    for group, other in zip(found.groups, expected.groups, strict=True):
        np.testing.assert_array_equal(group.rows, other.rows)


@pytest.mark.parametrize("n_train", [2, 3, 6, 9])
def test_most_of_the_rows_are_no_group(n_train):
    scores = -np.abs(np.random.default_rng(0).normal(size=(12, n_train)))
    est, X_query = known(scores)
    for alpha in (0.05, 1):
        found = behaviour_groups(est, X_query, np.ones(12), alpha=alpha, random_state=0)
        assert all(len(group.rows) <= 0.4 * n_train for group in found)
