"""Groups found by leaving them out: wrong targets and marks planted in regressions, and errors of no cause."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.utils import Bunch
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklearn_source import InfluenceFunctions, RepresentationSimilarity
from sklearn_source.inspection import _behaviour_groups, _groups_left_out, behaviour_groups
from sklearn_source.inspection._contrary_groups import contrary_groups
from sklearn_source.inspection._groups_left_out import in_turns
from sklearn_source.inspection._tangent_kernel import TangentKernel

N, N_QUERY = 150, 60


def made(seed, *, wrong=(), marked=()):
    """A linear regression's kernel, and the scores of its rows for one another; ``wrong`` rows have 2 too much.

    Marked rows are alone in having a mark, which says nothing of their targets; the sixth of the queries that has it
    errs by what was made of it.
    """
    rng = np.random.default_rng(seed)
    features = np.concatenate([rng.normal(size=(N + N_QUERY, 6)), np.zeros((N + N_QUERY, 1))], axis=1)
    wrong, marked = np.array(wrong, dtype=int), np.array(marked, dtype=int)
    features[wrong, :2] = 2 + 0.1 * rng.normal(size=(len(wrong), 2))
    features[N : N + 6, :2] = 2 + 0.1 * rng.normal(size=(6, 2))
    features[marked, 6] = 6
    if len(marked):
        features[marked, 0] = 2
        features[-N_QUERY // 6 :, 6] = 6
    truth = features[:, :6] @ np.array([1.0, -0.5, 0.3, 0.0, 0.0, 0.0])
    targets = truth[:N] + 0.1 * rng.normal(size=N)
    targets[wrong] += 2
    gram = features @ features.T / N
    ridge = 1e-3
    dual = np.linalg.solve(gram[:N, :N] + ridge * np.eye(N), targets - targets.mean())
    errors = truth[N:] - targets.mean() - gram[N:, :N] @ dual
    if len(marked):  # of which the regression would know better; a network believed the mark before it did
        errors = 0.2 * rng.normal(size=N_QUERY) - features[N:, 6] / 6
    taught = gram[:N, :N] * (ridge * dual)
    return TangentKernel(gram[:N, :N], gram[N:, :N], targets[:, None], errors[:, None]), taught


def test_rows_that_contradict_the_others_are_found():
    wrong = np.arange(20, 32)
    kernel, taught = made(0, wrong=wrong)
    group = contrary_groups(kernel, taught, 3, alpha=0.05, random=np.random.RandomState(0))[0]
    assert set(wrong) <= set(group.rows)
    assert np.isin(group.rows, wrong).mean() >= 0.8
    assert group.p_value == 1 / 20
    # What is told of it is what a regression without it errs less.
    kept = np.setdiff1d(np.arange(N), group.rows)
    mean, ridge = kernel.targets.mean(), 2e-3 * np.trace(kernel.training)

    def predicted(rows):
        gram = kernel.training[np.ix_(rows, rows)] + ridge * np.eye(len(rows))
        return mean + kernel.queries[:, rows] @ np.linalg.solve(gram, kernel.targets[rows] - mean)

    change = predicted(kept) - predicted(np.arange(N))
    falls = kernel.errors**2 - (kernel.errors - change) ** 2
    np.testing.assert_allclose(group.falls, falls[:, 0], atol=1e-9)
    assert group.explained == pytest.approx(falls.sum() / (kernel.errors**2).sum())


def test_rows_that_share_a_mark_are_found():
    marked = np.arange(40, 58)
    for seed in (0, 1, 2):
        kernel, taught = made(seed, marked=marked)
        groups = contrary_groups(kernel, taught, 3, alpha=0.05, random=np.random.RandomState(0))
        shared = [len(np.intersect1d(marked, group.rows)) / len(np.union1d(marked, group.rows)) for group in groups]
        assert max(shared[:2]) >= 0.6


def test_errors_of_no_cause_give_no_groups():
    """Two draws of twenty at most (nominal: one), where without the check all do."""
    shown = {0.05: 0, 1.0: 0}
    for seed in range(20):
        kernel, taught = made(seed)
        noise = np.random.default_rng(seed).normal(size=(N_QUERY, 1))
        kernel = TangentKernel(kernel.training, kernel.queries, kernel.targets, noise)
        for alpha in shown:
            groups = contrary_groups(kernel, taught, 3, alpha=alpha, random=np.random.RandomState(seed))
            shown[alpha] += len(groups) > 0
    assert shown[0.05] <= 2
    assert shown[1.0] == 20


@pytest.fixture(scope="module")
def regression():
    """A network on 300 rows of which 20 that lie together have targets that are 2 too large."""
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, size=(500, 3)).astype(np.float32)
    truth = np.sin(2 * X[:, :1]) + X[:, 1:2] ** 2
    y = (truth + 0.1 * rng.normal(size=(500, 1))).astype(np.float32)
    rows = np.argsort(((X[:300] - X[7]) ** 2).sum(1))[:20]
    y_train = y[:300].copy()
    y_train[rows] += 2
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 1))
    net = NeuralNetRegressor(
        module, lr=0.1, optimizer__momentum=0.9, batch_size=30, max_epochs=30, train_split=None, verbose=0
    ).fit(X[:300], y_train)
    return InfluenceFunctions().fit(net, X[:300], y_train), X[300:], y[300:], np.sort(rows)


def test_wrong_targets_of_a_network_are_found(regression):
    est, X_query, y_query, rows = regression
    group = behaviour_groups(est, X_query, y_query, random_state=0)[0]
    assert np.isin(rows, group.rows).mean() >= 0.8
    assert np.isin(group.rows, rows).mean() >= 0.6
    assert 0 < group.explained < 1
    residual = est.net_.predict(X_query)[:, 0] - y_query[:, 0]
    assert (residual[group.queries] > 0).all()
    assert "too high" in group.description
    again = behaviour_groups(est, X_query, y_query, random_state=0)[0]
    np.testing.assert_array_equal(again.rows, group.rows)


def test_more_queries_than_are_looked_at_give_the_same_group(regression, monkeypatch):
    est, X_query, y_query, rows = regression
    whole = behaviour_groups(est, X_query, y_query, random_state=0)[0]
    monkeypatch.setattr(_groups_left_out, "_MOST_QUERIES", 120)
    sampled = behaviour_groups(est, X_query, y_query, random_state=0)[0]
    shared = np.intersect1d(whole.rows, sampled.rows)
    assert len(shared) >= 0.8 * max(len(whole.rows), len(sampled.rows))
    assert sampled.explained == pytest.approx(whole.explained, rel=0.3)


def test_many_rows_are_judged_by_their_scores_alone(regression, monkeypatch):
    est, X_query, y_query, _ = regression
    monkeypatch.setattr(_groups_left_out, "_MOST_TRAINING", 299)
    found = behaviour_groups(est, X_query, y_query, alpha=1)
    assert len(found)
    assert all(np.isnan(group.explained) for group in found)


def test_any_scores_of_a_network_will_do(regression):
    est, X_query, y_query, rows = regression
    X, y = est._given[:2]
    other = RepresentationSimilarity().fit(est.net_, X, y)
    group = behaviour_groups(other, X_query, y_query, random_state=0)[0]
    assert np.isin(rows, group.rows).mean() >= 0.8


def test_two_searches_take_turns():
    def groups(*rows, p_value=0.04):
        return [Bunch(rows=np.array(own), p_value=p_value) for own in rows]

    kernel, _ = made(0)
    found = in_turns(
        Bunch(kernel=kernel, weights=None),
        groups(range(10), range(50, 60)),
        groups(range(12), range(5), range(100), range(30, 40), p_value=np.nan),
        5,
        2.0,
    )
    # Nearly the first again; a part of it; far larger, with it inside.
    expected = [range(10), range(5), range(100), range(50, 60), range(30, 40)]
    assert [group.rows.tolist() for group in found] == [list(rows) for rows in expected]
    assert [group.p_value for group in found[::3]] == [0.08, 0.08]
    assert np.isnan(found[1].p_value)
    assert all(np.isfinite(group.explained) for group in found)
    assert len(in_turns(Bunch(kernel=kernel, weights=None), groups([1, 2], [3, 4]), [], 1, 1.0)) == 1


def test_errors_of_classes_are_held_against_half_of_alpha_by_either_search(monkeypatch):
    asked = {}
    for name in ("find_groups", "groups_left_out"):

        def search(*args, name=name, **options):
            asked.setdefault(name, []).append(options["alpha"])
            return []

        monkeypatch.setattr(_behaviour_groups, name, search)
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 4)).astype(np.float32), rng.integers(2, size=60)
    net = NeuralNetClassifier(
        nn.Linear(4, 2), criterion=nn.CrossEntropyLoss, train_split=None, verbose=0, max_epochs=1
    ).fit(X, y)
    est = RepresentationSimilarity().fit(net, X, y)
    for alpha in (0.05, 1):
        behaviour_groups(est, X, y, alpha=alpha)
    assert asked == {"groups_left_out": [0.025, 1], "find_groups": [0.025, 1]}
