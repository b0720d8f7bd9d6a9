"""Checks of the arguments that many functions share: numbers of rows, orders, levels of confidence."""

from __future__ import annotations

from numbers import Integral, Real

_ORDERS = ("supporting", "opposing")


def check_count(name, value, smallest=1):
    """``value`` as an int; ValueError where it is no integer of at least ``smallest``."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < smallest:
        raise ValueError(f"expected {name} to be an integer >= {smallest}, got {value!r}")
    return int(value)


def check_k(k, n_train):
    """``k`` as an int; ValueError where it is no number of training rows."""
    if not isinstance(k, Integral) or isinstance(k, bool) or not 1 <= k <= n_train:
        raise ValueError(f"expected k to be an integer from 1 to {n_train}, the number of training rows, got {k!r}")
    return int(k)


def check_order(order):
    """Whether the largest scores come first; ValueError where ``order`` is none."""
    if not isinstance(order, str) or order not in _ORDERS:
        raise ValueError(f"expected order to be one of {_ORDERS}, got {order!r}")
    return order == "supporting"


def check_confidence(confidence, name="confidence"):
    """ValueError where ``confidence`` is no level of an interval, or of a test."""
    if not isinstance(confidence, Real) or isinstance(confidence, bool) or not 0 < confidence < 1:
        raise ValueError(f"expected {name} to be a number between 0 and 1, got {confidence!r}")


def require_reproducible(cache, random_state):
    """ValueError where results are to be kept that no other run could go on from."""
    if cache is not None and not isinstance(random_state, Integral):
        raise ValueError(
            f"expected random_state as an integer, which cache= needs, got {random_state!r}: pass one, as a run with "
            "other seeds could not go on from what this one leaves"
        )
