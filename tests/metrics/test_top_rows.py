"""Metrics of the strongest rows, against loops over rows and orders."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.base import clone

from sklearn_source import GradientSimilarity
from sklearn_source.metrics import class_detection_score, model_randomization_score, top_k_overlap
from sklearn_source.metrics._top import top_k_membership
from tests._nets import make_net


def tables(seed, n_query=6, n_train=15):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_query, n_train)), rng.normal(size=(n_query, n_train)), rng


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_membership_is_the_mean_over_orders_of_tied_rows(k):
    line = np.array([1.0, 0.0, 1.0, 2.0, 1.0])
    counts = np.zeros(5)
    orders = list(permutations(range(5)))
    for order in orders:
        counts[sorted(range(5), key=lambda i: (-line[i], order[i]))[:k]] += 1
    np.testing.assert_allclose(top_k_membership(line[None], k)[0], counts / len(orders))


@pytest.mark.parametrize("k", [1, 4, 15])
def test_class_detection_is_a_count(k):
    scores, _, rng = tables(0)
    y_query, y_train = rng.integers(0, 3, size=6), rng.integers(0, 3, size=15)
    found = class_detection_score(scores, y_query, y_train, k=k)
    expected = []
    for q in range(6):
        first = sorted(range(15), key=lambda m: -scores[q, m])[:k]
        expected.append(sum(y_train[m] == y_query[q] for m in first) / k)
    np.testing.assert_allclose(found.per_query, expected)
    assert found.score == pytest.approx(np.mean(expected))
    assert found.chance == pytest.approx(np.mean([np.mean(y_train == c) for c in y_query]))
    if k == 15:
        assert found.score == pytest.approx(found.chance)


def test_class_detection_takes_text_and_columns():
    y = np.array(["cat", "dog", "cat"])
    assert class_detection_score(np.eye(3), y, y).score == 1
    assert class_detection_score(-np.eye(3), y, y[:, None]).score == pytest.approx((0.5 + 0 + 0.5) / 3)


def test_intervals_cover_the_mean_over_queries():
    hits = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        scores, y = rng.normal(size=(40, 12)), rng.integers(0, 2, size=40)
        low, high = class_detection_score(scores, y, np.arange(12) % 2, k=3, confidence=0.9).interval
        hits.append(low <= 0.5 <= high)
    assert 0.85 <= np.mean(hits) <= 0.95


def test_randomization_agrees_with_scipy():
    scores, other, rng = tables(1)
    third = scores + 0.5 * rng.normal(size=scores.shape)
    found = model_randomization_score(scores, np.stack([other, third]))
    rho = np.array([[spearmanr(scores[q], r[q]).statistic for q in range(6)] for r in (other, third)])
    np.testing.assert_allclose(found.per_network, rho.mean(1), atol=1e-12)
    np.testing.assert_allclose(found.per_query, rho.mean(0), atol=1e-12)
    assert found.score == pytest.approx(rho.mean())
    assert found.interval[0] < found.score < found.interval[1]
    assert model_randomization_score(scores, other).score == pytest.approx(rho[0].mean())


def test_randomization_of_scores_that_do_not_change_or_vary():
    scores, _, _ = tables(2)
    assert model_randomization_score(scores, 3 * scores + 1).score == pytest.approx(1)
    assert model_randomization_score(scores, np.zeros_like(scores)).score == 0


def test_networks_that_learned_nothing():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3)).astype(np.float32)
    y, X_query = X[:, :1] + X[:, 1:2] ** 2, rng.normal(size=(5, 3)).astype(np.float32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = make_net(recorded=False, max_epochs=20).fit(X, y)
        nothing = clone(net).set_params(lr=0.0, max_epochs=1).fit(X, y)
        again = clone(net).set_params(max_epochs=20).fit(X, y)
    scores, by_none, by_other = (
        GradientSimilarity(metric="dot").fit(each, X, y).transform(X_query) for each in (net, nothing, again)
    )
    assert model_randomization_score(scores, by_none).score < model_randomization_score(scores, by_other).score - 0.2


@pytest.mark.parametrize("k", [1, 3, 15])
def test_overlap_of_two_methods_is_a_count(k):
    scores, other, _ = tables(3)
    found = top_k_overlap(scores, other, k=k)
    sets = [[set(np.argsort(-line)[:k]) for line in table] for table in (scores, other)]
    expected = [len(a & b) / k for a, b in zip(*sets)]
    np.testing.assert_allclose(found.per_query, expected)
    assert found.score == pytest.approx(np.mean(expected))
    assert found.chance == pytest.approx(k / 15)
    assert top_k_overlap(scores, scores, k=k).score == 1


@pytest.mark.parametrize("k", [1, 3, 15])
def test_overlap_between_queries_is_a_count_over_pairs(k):
    scores, _, _ = tables(4)
    found = top_k_overlap(scores, k=k)
    sets = [set(np.argsort(-line)[:k]) for line in scores]
    pairs = {(a, b): len(sets[a] & sets[b]) / k for a in range(6) for b in range(6) if a != b}
    assert found.score == pytest.approx(np.mean(list(pairs.values())))
    for q in range(6):
        assert found.per_query[q] == pytest.approx(np.mean([v for (a, _), v in pairs.items() if a == q]))
    assert found.cardinality == pytest.approx(len(set.union(*sets)) / (6 * k))


def test_overlap_interval_is_the_jackknife_over_queries():
    scores, _, _ = tables(5, n_query=9)
    found = top_k_overlap(scores, k=4)
    left_out = np.array([top_k_overlap(np.delete(scores, q, axis=0), k=4).score for q in range(9)])
    error = np.sqrt(8 / 9 * ((left_out - left_out.mean()) ** 2).sum())
    half = (found.interval[1] - found.interval[0]) / 2
    assert half == pytest.approx(2.306004 * error, rel=1e-5)  # Student's quantile, 8 degrees of freedom


def test_the_same_rows_for_all_queries():
    found = top_k_overlap(np.tile(np.arange(8.0), (5, 1)), k=2)
    assert found.score == 1
    assert found.cardinality == pytest.approx(1 / 5)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda s: class_detection_score(s, np.zeros(6), np.zeros(14)), "expected scores of shape"),
        (lambda s: class_detection_score(s, np.zeros(6), np.zeros(14)), "a label for every query and training row"),
        (lambda s: class_detection_score(s, np.zeros((6, 2)), np.zeros(15)), "one label per row"),
        (
            lambda s: class_detection_score(s, np.full(6, "0"), np.zeros(15)),
            "expected queries of the classes of the training",
        ),
        (lambda s: class_detection_score(s, np.zeros(6), np.zeros(15), k=16), "expected k to be an integer from 1 to"),
        (lambda s: class_detection_score(s, np.zeros(6), np.zeros(15), confidence=95), "confidence"),
        (lambda s: model_randomization_score(s, s[:, 1:]), "same queries and training rows"),
        (lambda s: model_randomization_score(s, s * np.nan), "finite"),
        (lambda s: model_randomization_score(s[0], s[0]), "n_query, n_train"),
        (lambda s: top_k_overlap(s, k=0), "expected k to be"),
        (lambda s: top_k_overlap(s, k=True), "expected k to be"),
        (lambda s: top_k_overlap(s[:1], k=2), "two queries or more"),
        (lambda s: top_k_overlap(s, s[:3], k=2), "both are to be of the same queries"),
        (lambda s: top_k_overlap(s[0], k=2), "n_query, n_train"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(tables(0)[0])
