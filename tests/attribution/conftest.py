"""Trainings are made once: no test writes to them."""

from __future__ import annotations

import functools

import pytest
import torch

from tests.attribution._runs import Hyper, Run


@pytest.fixture(autouse=True)
def single_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@functools.cache
def _made(kind, dtype, hyper):
    return Run(kind, dtype, Hyper(**dict(hyper)))


@pytest.fixture(scope="session")
def run():
    """``run(kind, dtype, **hyper)``"""

    def make(kind="mlp", dtype="float64", **hyper):
        return _made(kind, dtype, tuple(sorted(hyper.items(), key=lambda item: item[0])))

    return make
