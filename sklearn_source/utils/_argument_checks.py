"""Checks of the arguments that many functions share: numbers of rows, orders, levels of confidence, paths."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path

import numpy as np

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


def check_switch(name, value):
    """``value`` as a bool; ValueError for anything else: the text "False" would count as true."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"expected {name} to be True or False, got {value!r}")
    return bool(value)


def check_choice(name, value, choices):
    """ValueError where ``value`` is none of the texts ``choices``."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"expected {name} to be one of {tuple(choices)}, got {value!r}")


def check_callable(name, value):
    """ValueError where ``value`` is neither None nor a function."""
    if value is not None and not callable(value):
        raise ValueError(f"expected {name} to be a function or None, got {value!r}")


def check_names(name, value, *, or_mapping=False):
    """ValueError where ``value`` is neither None nor texts in an order (or by key); one text is no list of them."""
    if value is None or or_mapping and isinstance(value, Mapping):
        return
    if isinstance(value, (str, bytes, set, frozenset, Mapping)) or not isinstance(value, Iterable):
        raise ValueError(f"expected {name} to be a list of texts, got a {type(value).__name__}: {value!r}")


def check_path(name, value):
    """``value`` as a Path; ValueError where it can be the name of no file."""
    if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str) or "\0" in os.fspath(value):
        raise ValueError(f"expected {name} to be a path, got {value!r}")
    return Path(value)


def check_jobs(n_jobs):
    """ValueError where ``n_jobs`` is no number of processes as joblib counts them."""
    if n_jobs is None:
        return
    if not isinstance(n_jobs, Integral) or isinstance(n_jobs, bool) or n_jobs == 0:
        raise ValueError(
            f"expected n_jobs to be None or an integer other than 0 (-1 for as many as there are processors), got "
            f"{n_jobs!r}"
        )


def check_verbose(verbose):
    """ValueError where ``verbose`` is no level of it."""
    if not isinstance(verbose, (Integral, np.bool_)) or verbose < 0:
        raise ValueError(f"expected verbose to be an integer >= 0, got {verbose!r}")


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
