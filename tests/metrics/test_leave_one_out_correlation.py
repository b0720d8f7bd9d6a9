"""Agreement with leaving out rows, on truths of known slope and order."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr, t
from sklearn.utils import Bunch

from sklearn_source.metrics import leave_one_out_correlation


def world(seed, n_query=30, n_train=50, noise=0.0, factor=1.0):
    rng = np.random.default_rng(seed)
    effects = rng.normal(size=(n_query, n_train))
    masks = np.vstack([np.ones((1, n_train), bool), ~np.eye(n_train, dtype=bool)])
    outputs = (5.0 + masks @ effects.T)[:, None] + noise * rng.normal(size=(n_train + 1, 2, n_query))
    return effects / factor, Bunch(masks=masks, outputs=outputs), effects


def test_exact_scores_have_rank_and_slope_one():
    scores, truth, _ = world(0)
    found = leave_one_out_correlation(scores, truth)
    assert found.rank == pytest.approx(1)
    assert found.slope == pytest.approx(1)
    assert found.slope_interval == pytest.approx((1, 1))


@pytest.mark.parametrize("factor", [0.5, -1.0, 3.0])
def test_slope_tells_a_wrong_unit_and_sign(factor):
    scores, truth, _ = world(0, noise=0.3, factor=factor)
    found = leave_one_out_correlation(scores, truth)
    assert found.slope == pytest.approx(factor, rel=0.05)
    assert found.slope_interval[0] < factor < found.slope_interval[1]
    assert np.sign(found.rank) == np.sign(factor)


def test_agrees_with_scipy_in_any_order_of_subsets():
    scores, truth, _ = world(1, noise=1.0)
    order = np.random.default_rng(0).permutation(51)
    order = order[order != 7]  # a row that was not left out
    truth = Bunch(masks=truth.masks[order], outputs=truth.outputs[order])
    found = leave_one_out_correlation(scores, truth)
    mean = truth.outputs.mean(1)
    whole = mean[truth.masks.all(1)][0]
    left_out = [int(np.flatnonzero(~mask)[0]) for mask in truth.masks if not mask.all()]
    assert list(found.rows) == left_out
    effects = whole - mean[~truth.masks.all(1)]
    expected = [spearmanr(scores[q, left_out], effects[:, q]).statistic for q in range(30)]
    np.testing.assert_allclose(found.per_query, expected, atol=1e-12)
    assert found.rank == pytest.approx(np.mean(expected))
    slope = (scores[:, left_out].T * effects).sum() / (scores[:, left_out] ** 2).sum()
    assert found.slope == pytest.approx(slope)


@pytest.mark.parametrize("n_query", [2, 5, 12, 40])
def test_intervals_cover(n_query):
    """At 95 %, over worlds of queries of unlike noise and size. Three standard errors of 500 worlds are .029."""
    rng = np.random.default_rng(n_query)
    masks = np.vstack([np.ones((1, 20), bool), ~np.eye(20, dtype=bool)])
    found = []
    for _ in range(500):
        size, noise = np.exp(0.3 * rng.normal(size=(n_query, 1))), np.exp(0.2 * rng.normal(size=(n_query, 1)))
        effects = size * rng.standard_t(5, size=(n_query, 20))
        scores = effects / 2 + 0.3 * size * noise * rng.normal(size=effects.shape)
        outputs = masks @ effects.T + 0.5 * rng.normal(size=(21, n_query))
        result = leave_one_out_correlation(scores, Bunch(masks=masks, outputs=outputs[:, None]))
        found.append((*result.rank_interval, result.rank, *result.slope_interval, result.slope))
    low, high, rank, slope_low, slope_high, slope = np.array(found).T
    assert 0.90 <= np.mean((low < rank.mean()) & (rank.mean() < high)) <= 0.985
    # A ratio of sums: the slope of many queries, not the mean of slopes.
    true = 2 / (1 + 4 * 0.09 * np.exp(2 * 0.2**2) / (5 / 3))
    assert 0.90 <= np.mean((slope_low < true) & (true < slope_high)) <= 0.985


def test_intervals_agree_with_leaving_out_queries_by_hand():
    scores, truth, effects = world(2, n_query=6, noise=0.5)
    found = leave_one_out_correlation(scores, truth, confidence=0.8)
    slopes = []
    for q in range(6):
        others = np.delete(np.arange(6), q)
        fewer = Bunch(masks=truth.masks, outputs=truth.outputs[:, :, others])
        slopes.append(leave_one_out_correlation(scores[others], fewer).slope)
    reach = t.ppf(0.9, 5) * np.sqrt(5 / 6 * np.sum((np.array(slopes) - np.mean(slopes)) ** 2))
    assert found.slope_interval == pytest.approx((found.slope - reach, found.slope + reach))
    reach = t.ppf(0.9, 5) * np.std(found.per_query, ddof=1) / np.sqrt(6)
    assert found.rank_interval == pytest.approx((found.rank - reach, found.rank + reach))


def test_a_single_query_has_no_interval():
    scores, truth, _ = world(0, n_query=1, noise=1.0)
    found = leave_one_out_correlation(scores, truth)
    assert np.isfinite([found.rank, found.slope]).all()
    assert np.isnan([*found.rank_interval, *found.slope_interval]).all()


def test_scores_of_zero_have_no_slope():
    scores, truth, _ = world(0)
    found = leave_one_out_correlation(0 * scores, truth)
    assert found.rank == 0
    assert np.isnan([found.slope, *found.slope_interval]).all()


def test_a_truth_without_left_out_rows_is_refused():
    scores, truth, _ = world(0)
    for rows in (slice(1, None), slice(0, 3)):
        few = Bunch(masks=truth.masks[rows], outputs=truth.outputs[rows])
        with pytest.raises(ValueError, match="make it with leave_one_out"):
            leave_one_out_correlation(scores, few)
