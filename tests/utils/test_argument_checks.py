"""Checks of arguments: what passes, and what the errors say."""

from __future__ import annotations

import re

import numpy as np
import pytest

from sklearn_source.utils._argument_checks import check_confidence, check_count, check_k, check_order


@pytest.mark.parametrize("k", [1, np.int64(5)])
def test_numbers_of_rows(k):
    assert check_k(k, 5) == k
    assert type(check_k(k, 5)) is int


@pytest.mark.parametrize("k", [0, 6, -1, True, 2.0, "2", None, np.array([1])])
def test_no_numbers_of_rows(k):
    message = f"expected k to be an integer from 1 to 5, the number of training rows, got {k!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_k(k, 5)


def test_counts():
    assert check_count("n", np.int32(3)) == 3
    assert check_count("n", 0, 0) == 0
    for value, smallest in ((0, 1), (1, 2), (True, 1), (1.0, 1), (None, 1)):
        with pytest.raises(ValueError, match=f"expected n to be an integer >= {smallest}, got {value!r}"):
            check_count("n", value, smallest)


def test_orders():
    assert check_order("supporting") is True
    assert check_order("opposing") is False
    for order in ("best", None, ["supporting"]):
        with pytest.raises(ValueError, match="expected order to be one of .'supporting', 'opposing'., got"):
            check_order(order)


def test_levels_of_confidence():
    check_confidence(0.9)
    for value in (0, 1, 95, True, "0.9", float("nan")):
        with pytest.raises(ValueError, match=f"expected confidence to be a number between 0 and 1, got {value!r}"):
            check_confidence(value)
