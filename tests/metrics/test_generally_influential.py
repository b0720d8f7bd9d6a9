"""Rows in the lists of many queries, in cases worked out by hand and by chance."""

from __future__ import annotations

import numpy as np
import pytest

from sklearn_source.metrics import generally_influential_share


def test_lists_worked_out_by_hand():
    scores = np.zeros((4, 6))
    for query, tops in enumerate([(0, 1), (0, 2), (0, 1), (3, 4)]):
        scores[query, list(tops)] = 1.0
    result = generally_influential_share(scores, k=2, share=0.4)
    np.testing.assert_array_equal(result.rows, [0, 1])  # in three and two of four lists
    np.testing.assert_allclose(result.per_query, [1, 0.5, 1, 0])
    assert result.score == 0.625
    np.testing.assert_allclose(result.frequency, [0.75, 0.5, 0.25, 0.25, 0.25, 0])
    assert generally_influential_share(scores, k=2, share=0.5).rows.tolist() == [0]  # more than the share
    assert generally_influential_share(scores, k=2, share=0.75).score == 0


def test_extremes():
    same = np.tile(np.arange(20.0), (10, 1))
    assert generally_influential_share(same, k=5).score == 1
    apart = np.eye(20)
    assert generally_influential_share(apart, k=1, share=0.05).score == 0


def test_chance_is_that_of_random_orders():
    rng = np.random.default_rng(0)
    results = [generally_influential_share(rng.random((20, 50)), k=5, share=0.15) for _ in range(300)]
    found = np.mean([result.score for result in results])
    assert found == pytest.approx(results[0].chance, abs=0.02)
    assert 0.1 < results[0].chance < 0.9


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match="expected share to be from 0 to below 1"):
        generally_influential_share(np.eye(3), k=1, share=1.0)
    with pytest.raises(ValueError, match="k"):
        generally_influential_share(np.eye(3), k=4)
