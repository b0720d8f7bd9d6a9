"""Problems are made once: their tensors are never written."""

from __future__ import annotations

import functools

import pytest
import torch

from tests.curvature._problems import Problem


@pytest.fixture(autouse=True)
def single_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def problem():
    return functools.lru_cache(maxsize=None)(Problem)
