"""Detection of mislabelled rows, against scikit-learn and loops over orders of inspection."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from sklearn.metrics import average_precision_score, roc_auc_score

from sklearn_source.metrics import mislabel_detection_score


def world(seed, n=60, n_bad=15, levels=None, shift=1.0):
    rng = np.random.default_rng(seed)
    bad = np.zeros(n, dtype=bool)
    bad[rng.choice(n, n_bad, replace=False)] = True
    scores = rng.normal(size=n) + shift * bad
    return (scores if levels is None else np.round(scores * levels) / levels), bad, rng


@pytest.mark.parametrize("levels", [None, 2, 1])
def test_area_agrees_with_scikit_learn(levels):
    scores, bad, _ = world(0, levels=levels)
    found = mislabel_detection_score(scores, bad)
    assert found.score == pytest.approx(roc_auc_score(bad, scores))
    assert mislabel_detection_score(scores, np.flatnonzero(bad)).score == found.score
    share = bad.mean()
    area = trapezoid(found.found, found.n_inspected / len(bad))
    assert area == pytest.approx(share / 2 + (1 - share) * found.score)


def test_precision_agrees_with_scikit_learn():
    scores, bad, _ = world(1)
    found = mislabel_detection_score(scores, bad)
    assert found.average_precision == pytest.approx(average_precision_score(bad, scores))


def test_curve_is_a_count():
    scores, bad, _ = world(2)
    found = mislabel_detection_score(scores, bad)
    order = sorted(range(60), key=lambda i: -scores[i])
    for k in range(61):
        assert found.found[k] == pytest.approx(sum(bad[i] for i in order[:k]) / 15)
        assert found.found_by_chance[k] == pytest.approx(k / 60)
        assert found.found_at_best[k] == pytest.approx(min(k / 15, 1))
    assert mislabel_detection_score(bad.astype(float), bad).found == pytest.approx(found.found_at_best)


def test_tied_rows_count_by_the_mean_over_orders():
    scores, bad, rng = world(3, n=12, n_bad=4, levels=1)
    curve = np.zeros(13)
    for _ in range(4000):
        order = np.lexsort((rng.random(12), -scores))
        curve[1:] += np.cumsum(bad[order]) / 4 / 4000
    np.testing.assert_allclose(mislabel_detection_score(scores, bad).found, curve, atol=0.03)


def test_tied_rows_have_the_worst_precision():
    bad = np.array([True, False, False, True])
    assert mislabel_detection_score(np.zeros(4), bad).average_precision == pytest.approx((1 / 3 + 2 / 4) / 2)


def test_interval_covers():
    areas, hits = [], []
    for seed in range(400):
        scores, bad, _ = world(seed, n=100, n_bad=30)
        found = mislabel_detection_score(scores, bad, confidence=0.9)
        areas.append(found.score)
        hits.append(found.interval)
    low, high = np.array(hits).T
    assert 0.85 <= ((low < np.mean(areas)) & (np.mean(areas) < high)).mean() <= 0.94


def test_a_single_mislabelled_row_has_no_interval():
    found = mislabel_detection_score([3.0, 1.0, 2.0], [2])
    assert found.score == 0.5
    assert np.isnan(found.interval).all()


def test_masks_of_any_kind():
    scores, mask = np.arange(5.0), np.array([False, True, False, False, True])
    expected = mislabel_detection_score(scores, mask).score
    for bad in (
        mask.tolist(),
        mask.astype(int),
        mask.astype(np.uint8),
        [1, 4],
        torch.tensor(mask),
        torch.tensor([4, 1]),
    ):
        assert mislabel_detection_score(scores, bad).score == expected


@pytest.mark.parametrize(
    "scores, bad, message",
    [
        (np.zeros((3, 2)), [0], "one score per training row"),
        (["a", "b"], [0], "one score per training row"),
        ([0.0, np.nan], [0], "expected finite scores"),
        ([0.0, 1.0], [2], "indices from 0 to 1"),
        ([0.0, 1.0], [-1], "indices from 0 to 1"),
        ([0.0, 1.0], [True], "mask of 2 booleans"),
        ([0.0, 1.0, 2.0], [0, 2, 2], "twice"),
        ([0.0, 1.0, 2.0], [], "0 mislabelled of 3 rows"),
        ([0.0, 1.0], [True, True], "2 mislabelled of 2 rows"),
        ([0.0, 1.0], np.zeros(2, bool), "0 mislabelled of 2 rows"),
    ],
)
def test_bad_input(scores, bad, message):
    with pytest.raises(ValueError, match=message):
        mislabel_detection_score(scores, bad)
