"""Agreement with leaving out rows, on truths of known slope and order."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
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


def test_rank_interval_covers():
    hits = []
    for seed in range(150):
        scores, truth, _ = world(seed, n_query=12, noise=2.0)
        found = leave_one_out_correlation(scores, truth, n_bootstrap=100, confidence=0.9)
        hits.append((found.rank_interval[0], found.rank_interval[1], found.rank))
    low, high, rank = np.array(hits).T
    inside = (low < rank.mean()) & (rank.mean() < high)
    assert 0.82 <= inside.mean() <= 0.97


def test_scores_of_zero_have_no_slope():
    scores, truth, _ = world(0)
    found = leave_one_out_correlation(0 * scores, truth)
    assert found.rank == 0
    assert np.isnan(found.slope)


def test_a_truth_without_left_out_rows_is_refused():
    scores, truth, _ = world(0)
    for rows in (slice(1, None), slice(0, 3)):
        few = Bunch(masks=truth.masks[rows], outputs=truth.outputs[rows])
        with pytest.raises(ValueError, match="make it with leave_one_out"):
            leave_one_out_correlation(scores, few)
