from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_source.rows import TruthQueries, require_same_rows, row_hashes, rows_of_stages
from sklearn_source.rows._matching import match_rows

few_values = st.lists(st.integers(0, 5), max_size=30).map(lambda values: np.array(values, dtype=np.uint64))


@settings(max_examples=200, deadline=None)
@given(few_values, few_values)
def test_match_is_a_partial_bijection_of_equal_rows(rows, known):
    places = match_rows(rows, known)
    met = places >= 0
    np.testing.assert_array_equal(known[places[met]], rows[met])
    assert len(set(places[met].tolist())) == met.sum()
    both = Counter(rows.tolist()) & Counter(known.tolist())  # as many of each as both have
    assert Counter(rows[met].tolist()) == both
    for value in both:  # the k-th of equal rows is the k-th known
        k = both[value]
        np.testing.assert_array_equal(places[rows == value][:k], np.flatnonzero(known == value)[:k])


@settings(max_examples=100, deadline=None)
@given(few_values, st.randoms(use_true_random=False))
def test_a_permutation_is_found(known, random):
    order = random.sample(range(len(known)), len(known))
    places = match_rows(known[order], known)
    assert sorted(places.tolist()) == list(range(len(known)))
    np.testing.assert_array_equal(known[places], known[order])


@settings(max_examples=200, deadline=None)
@given(few_values, few_values)
def test_known_rows_that_are_reused_take_turns(rows, known):
    places, n_met = match_rows(rows, known, reuse=True), Counter()
    for value, place in zip(rows.tolist(), places.tolist()):
        equal = np.flatnonzero(known == value)
        assert place == (equal[n_met[value] % len(equal)] if len(equal) else -1)
        n_met[value] += 1


@settings(max_examples=100, deadline=None)
@given(few_values, few_values, st.data())
def test_some_known_rows_are_met_before_their_equals(rows, known, data):
    first = np.array(data.draw(st.lists(st.booleans(), min_size=len(known), max_size=len(known))), dtype=bool)
    places = match_rows(rows, known, first=first)
    for value in set(rows.tolist()) if not np.array_equal(rows, known) else ():
        met = places[rows == value]
        met = met[met >= 0]
        assert first[met].sum() == min(len(met), first[known == value].sum())


def test_unknown_and_surplus_rows_match_nothing():
    known = row_hashes(np.array([[1], [2], [2], [3]]))
    rows = row_hashes(np.array([[2], [9], [3], [3], [7]]))
    np.testing.assert_array_equal(match_rows(rows, known), [1, -1, 3, -1, -1])
    np.testing.assert_array_equal(match_rows(rows, known[:0]), [-1] * 5)


def test_rows_to_be_met_first():
    known = row_hashes(np.array([[1], [2], [2], [2]]))
    first = np.array([False, False, True, False])
    np.testing.assert_array_equal(match_rows(row_hashes(np.array([[2], [2]])), known, first=first), [2, 1])


def test_the_same_rows_in_the_same_order():
    known = np.array([7, 8, 8, 9], dtype=np.uint64)
    require_same_rows(known.copy(), known)
    with pytest.raises(ValueError, match="in the same order, got them in another one"):
        require_same_rows(known[[1, 0, 2, 3]], known)
    with pytest.raises(ValueError, match="in the same order, got 2 others"):
        require_same_rows(np.array([1, 8, 8, 2], dtype=np.uint64), known)
    with pytest.raises(ValueError, match="in the same order, got 1 others"):  # one 9 too many
        require_same_rows(np.array([7, 8, 9, 9], dtype=np.uint64), known)


@pytest.mark.parametrize("container", [list, np.ndarray.tolist, np.asarray])
def test_queries_of_a_truth_are_recognised_in_lists_too(container):
    X = np.arange(12.0).reshape(3, 4)
    queries = TruthQueries(container(X), 3)
    np.testing.assert_array_equal(queries.positions(container(X[[2, 0, 2]])), [2, 0, 2])
    with pytest.raises(ValueError, match="1 of 2 queries are not among those"):
        queries.positions(container(X[:2] + [[0], [1]]))


def test_rows_that_some_stage_trained_on():
    one = np.array([1, 3, 4])
    assert rows_of_stages([one]) is one
    for credited in ([np.array([4, 1, 3])], [np.array([4]), np.array([1, 3]), np.array([3])], [one, one[:0]]):
        np.testing.assert_array_equal(rows_of_stages(credited), one)
    assert not len(rows_of_stages([one[:0], one[:0]]))
