"""Likeness of rows by what they teach and learn, against cosines taken one by one."""

from __future__ import annotations

import numpy as np
import pytest

from sklearn_source.inspection._lessons import Lessons


def cosine(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


@pytest.fixture(scope="module")
def taught():
    return np.random.default_rng(0).normal(size=(9, 9))


def profiles(taught, pool, respect):
    """What each row teaches the rows of the pool, or learns from each in units of how far it moves the pool.

    What a row teaches itself is left out.
    """
    own = taught.copy()
    np.fill_diagonal(own, 0)
    return own[pool].T if respect == "teach" else own / np.sqrt((own[pool] ** 2).sum(axis=0))


@pytest.mark.parametrize("respect", ["teach", "learn"])
def test_mean_cosine_to_the_others_of_a_group(taught, respect):
    pool, groups = np.array([0, 2, 3, 5, 8]), [np.array([2, 5, 8]), np.array([0, 3])]
    lessons = Lessons.of(pool, 9, taught[pool])
    known = profiles(taught, pool, respect)
    found = lessons.likeness(groups, respect)
    for own, group in zip(found, groups):
        for row in range(9):
            expected = np.mean([cosine(known[row], known[other]) for other in group if other != row])
            assert own[row] == pytest.approx(0 if respect == "learn" and row not in pool else expected, abs=1e-6)
    np.testing.assert_allclose(
        lessons.alike[respect], [[cosine(known[a], known[b]) for b in pool] for a in pool], atol=1e-6
    )


def test_rows_outside_the_pool_teach(taught):
    pool = np.array([0, 2, 3, 5, 8])
    known = profiles(taught, pool, "teach")
    (found,) = Lessons.of(pool, 9, taught[pool]).likeness([np.array([1, 2])], "teach")
    assert found[7] == pytest.approx((cosine(known[7], known[1]) + cosine(known[7], known[2])) / 2, abs=1e-6)


def test_errors_in_the_place_of_rows(taught):
    harm = taught[:4]
    lessons = Lessons.of_errors(np.array([1, 4]), harm)
    assert list(lessons.alike) == ["teach"]
    (found,) = lessons.likeness([np.array([1, 4])], "teach")
    assert found[1] == pytest.approx(cosine(harm[:, 1], harm[:, 4]), abs=1e-6)


def test_dealt_out_rows_take_all_of_anothers_lessons(taught):
    lessons = Lessons.of(np.array([0, 2, 3, 5, 8]), 9, taught[[0, 2, 3, 5, 8]])
    others = lessons.of_others(np.array([1, 4, 6]), np.random.RandomState(0))
    assert sorted(others.column) == list(range(9))
    assert list(np.flatnonzero(others.place >= 0)) == [1, 4, 6]
    group = np.array([1, 4])
    for respect in ("teach", "learn"):
        (found,) = others.likeness([group], respect)
        (expected,) = lessons.likeness([others.column[group]], respect)
        np.testing.assert_allclose(found[[1, 4, 6]], expected[others.column[[1, 4, 6]]], atol=1e-6)


def test_rows_that_teach_nothing_are_like_none(taught):
    silent = taught.copy()
    silent[:, 2] = silent[2] = 0
    lessons = Lessons.of(np.arange(9), 9, silent)
    for respect in ("teach", "learn"):
        assert lessons.alike[respect][2, 2] == 0
        assert np.isfinite(lessons.likeness([np.array([1, 2, 3])], respect)).all()
