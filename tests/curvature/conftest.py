"""Problems are made once: their tensors are never written."""

from __future__ import annotations

import functools

import pytest

from tests.curvature._problems import Problem


@pytest.fixture(scope="session")
def problem():
    return functools.lru_cache(maxsize=None)(Problem)
