"""The linear datamodeling score against scipy; its interval and ceiling where the truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.utils import Bunch

from sklearn_source.metrics import linear_datamodeling_score
from sklearn_source.metrics._ranks import resampled_spearman
from tests.metrics._worlds import additive_world


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_scipy(seed):
    scores, truth, _ = additive_world(seed, n_subsets=25, n_query=7)
    found = linear_datamodeling_score(scores, truth, n_bootstrap=10)
    for q in range(7):
        predicted = [scores[q, mask].sum() for mask in truth.masks]
        expected = spearmanr(predicted, truth.outputs[:, :, q].mean(1)).statistic
        assert found.per_query[q] == pytest.approx(expected, abs=1e-12)
    assert found.score == pytest.approx(found.per_query.mean())


def test_resamples_agree_with_scipy_on_repeated_rows_and_ties():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, size=30).astype(float), rng.normal(size=30)
    counts = rng.multinomial(30, np.full(30, 1 / 30), size=20)
    found = resampled_spearman(a, b, counts.astype(float))
    for value, count in zip(found, counts):
        rows = np.repeat(np.arange(30), count)
        assert value == pytest.approx(spearmanr(a[rows], b[rows]).statistic, abs=1e-12)


def test_perfect_opposite_and_constant_scores():
    _, truth, effects = additive_world(0, n_subsets=40, n_query=5, reliability=1.0)
    assert linear_datamodeling_score(3 * effects, truth).score == pytest.approx(1)
    assert linear_datamodeling_score(-effects, truth).score == pytest.approx(-1)
    assert linear_datamodeling_score(np.zeros_like(effects), truth).score == 0
    assert linear_datamodeling_score(effects, truth).ceiling == pytest.approx(1)


def covered(n_worlds, n_subsets, n_query, n_bootstrap):
    """Share of intervals that hold the score of all queries and subsets of this kind, at level 0.9."""
    target = np.mean([score_of(1000 + seed, n_subsets, 200, 2).score for seed in range(60)])
    intervals = [score_of(seed, n_subsets, n_query, n_bootstrap).interval for seed in range(n_worlds)]
    return np.mean([low <= target <= high for low, high in intervals])


def score_of(seed, n_subsets, n_query, n_bootstrap):
    scores, truth, _ = additive_world(seed, n_subsets=n_subsets, n_query=n_query)
    return linear_datamodeling_score(scores, truth, n_bootstrap=n_bootstrap, confidence=0.9, random_state=seed)


def test_interval_covers_at_its_nominal_rate():
    assert 0.84 <= covered(200, 40, 20, 100) <= 0.955  # three standard errors below 0.9, and not much too wide


@pytest.mark.slow
@pytest.mark.parametrize("n_subsets, n_query", [(100, 100), (30, 100), (100, 8)])
def test_interval_covers_at_its_nominal_rate_in_many_shapes(n_subsets, n_query):
    assert 0.86 <= covered(500, n_subsets, n_query, 200) <= 0.95


@pytest.mark.parametrize("n_repeats", [2, 3, 10])
@pytest.mark.parametrize("reliability", [0.5, 0.8, 0.95])
def test_ceiling_is_what_perfect_scores_reach(n_repeats, reliability):
    _, truth, effects = additive_world(
        0, n_subsets=200, n_query=150, n_repeats=n_repeats, reliability=reliability, shared=0.0
    )
    found = linear_datamodeling_score(effects, truth, n_bootstrap=2)
    assert found.ceiling == pytest.approx(np.sqrt(reliability), abs=0.03)
    assert found.ceiling == pytest.approx(found.score, abs=0.015)


def test_ceiling_needs_two_repeats():
    scores, truth, _ = additive_world(0, n_subsets=10, n_query=3, n_repeats=1)
    found = linear_datamodeling_score(scores, truth)
    assert np.isnan(found.ceiling)
    assert np.isfinite(found.interval).all()


def test_same_seed_same_result():
    scores, truth, _ = additive_world(0, n_subsets=20, n_query=4, n_repeats=4)
    one, two = (linear_datamodeling_score(scores, truth, random_state=3) for _ in range(2))
    assert (one.interval, one.ceiling) == (two.interval, two.ceiling)
    assert linear_datamodeling_score(scores, truth, random_state=4).interval != one.interval


def test_one_query_has_an_interval():
    scores, truth, _ = additive_world(0, n_subsets=50, n_query=1)
    found = linear_datamodeling_score(scores, truth)
    assert found.interval[0] < found.score < found.interval[1]


def test_scores_in_any_container():
    scores, truth, _ = additive_world(0, n_subsets=10, n_query=3)
    expected = linear_datamodeling_score(scores, truth, n_bootstrap=2).score
    tensor = torch.tensor(scores, requires_grad=True)
    for same in (scores.tolist(), pd.DataFrame(scores), tensor):
        assert linear_datamodeling_score(same, truth, n_bootstrap=2).score == expected
    coarse = linear_datamodeling_score(tensor.bfloat16().float(), truth, n_bootstrap=2).score
    assert linear_datamodeling_score(tensor.bfloat16(), truth, n_bootstrap=2).score == coarse


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s, t: (s.T, t), "expected scores of shape"),
        (lambda s, t: (np.where(s > 0, np.nan, s), t), "finite scores"),
        (lambda s, t: (s, t.masks), "expected truth with attributes masks"),
        (lambda s, t: (s[:0], Bunch(masks=t.masks, outputs=t.outputs[:, :, :0])), "at least one network for one query"),
        (lambda s, t: (s, Bunch(masks=t.masks.astype(int), outputs=t.outputs)), "booleans"),
        (lambda s, t: (s, Bunch(masks=t.masks, outputs=t.outputs / 0.0)), "training diverged"),
        (lambda s, t: (s, Bunch(masks=t.masks[:2], outputs=t.outputs[:2])), "at least 3 subsets"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_bad_input(change, message):
    scores, truth, _ = additive_world(0, n_subsets=5, n_query=3)
    with pytest.raises(ValueError, match=message):
        linear_datamodeling_score(*change(scores, truth))


@pytest.mark.parametrize("options", [{"n_bootstrap": 1}, {"confidence": 1.0}, {"confidence": 95}])
def test_bad_options(options):
    scores, truth, _ = additive_world(0, n_subsets=5, n_query=3)
    with pytest.raises(ValueError, match=next(iter(options))):
        linear_datamodeling_score(scores, truth, **options)
