"""Trainings are made once: no test writes to them."""

from __future__ import annotations

import functools

import pytest

from tests.attribution._runs import Hyper, Run


@functools.cache
def _made(kind, dtype, hyper):
    return Run(kind, dtype, Hyper(**dict(hyper)))


@pytest.fixture(scope="session")
def run():
    """``run(kind, dtype, **hyper)``"""

    def make(kind="mlp", dtype="float64", **hyper):
        return _made(kind, dtype, tuple(sorted(hyper.items(), key=lambda item: item[0])))

    return make
