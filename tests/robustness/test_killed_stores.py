"""A store of training gradients whose writers are killed: the next call goes on, and ends with the same bits."""

from __future__ import annotations

import itertools
import os
import signal
import time

import numpy as np
import pytest
from sklearn.base import clone

from sklearn_source import InfluenceFunctions, SourceAttribution, TracIn, config_context
from sklearn_source.base._gradient_store import GradientStore
from sklearn_source.utils._random import seeded
from tests._nets import make_net

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]
_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(48, 3)).astype(np.float32)
y = (X[:, :1] - X[:, 1:2] ** 2).astype(np.float32)
X_query = _RNG.normal(size=(7, 3)).astype(np.float32)
METHODS = {
    "source": SourceAttribution(n_segments=2, random_state=0),
    "influence": InfluenceFunctions(random_state=0),
    "tracin": TracIn(),
}


@pytest.fixture(scope="module")
def fitted():
    """By name, fitted within a budget of which a file takes few rows."""
    with seeded(0):
        net = make_net().fit(X, y)
    with config_context(memory_budget=100_000):
        yield lambda name: clone(METHODS[name]).fit(net, X, y)


def started(estimator, folder):
    """A process that writes the store: its id."""
    pid = os.fork()
    if not pid:
        try:
            estimator.store_gradients(folder)
        finally:
            os._exit(0)
    return pid


def killed(pid):
    """Whether SIGKILL met the process at work."""
    os.kill(pid, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def written(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.glob("[!.]*"))} if folder.exists() else {}


def slowed(monkeypatch, seconds):
    """Every write takes a while, so that a kill meets one."""
    original = GradientStore._put

    def put(self, file, content):
        original(self, file, content)
        time.sleep(seconds)

    monkeypatch.setattr(GradientStore, "_put", put)


def test_killed_writers_are_gone_on_from(fitted, tmp_path, monkeypatch):
    """Three SIGKILLs, each when a file more is there; what is there is not written again."""
    estimator, folder = fitted("source"), tmp_path / "store"
    expected = written(estimator.store_gradients(tmp_path / "whole").gradient_store_.path)
    assert len(expected) > 5
    with monkeypatch.context() as patch:
        slowed(patch, 0.25)
        for _ in range(3):
            before, patience = written(folder), time.monotonic() + 30
            pid = started(estimator, folder)
            while len(written(folder)) == len(before) and time.monotonic() < patience:
                time.sleep(0.005)
            assert killed(pid)
            assert len(before) < len(written(folder)) < len(expected)
    times = {name: (folder / name).stat().st_mtime_ns for name in written(folder)}
    estimator.store_gradients(folder)
    assert written(folder) == expected
    assert times == {name: (folder / name).stat().st_mtime_ns for name in times}


def test_a_kill_at_every_file_operation(fitted, tmp_path):
    estimator, finished, number = fitted("influence"), False, 0
    expected = written(estimator.store_gradients(tmp_path / "whole").gradient_store_.path)
    scores = estimator.transform(X_query)
    while not finished:
        number, folder = number + 1, tmp_path / f"{number}"
        pid = os.fork()
        if not pid:
            try:
                _die_at(number)
                estimator.store_gradients(folder)
            finally:
                os._exit(0)
        finished = not os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        estimator.store_gradients(folder)
        assert written(folder) == expected, number
        assert estimator.transform(X_query).tobytes() == scores.tobytes()
    assert number > 5


def _die_at(number):
    """Kill this process before its file operation of that number."""
    count = itertools.count(1)
    for name in ("fsync", "replace", "mkdir"):
        original = getattr(os, name)

        def counted(*args, original=original, **options):
            if next(count) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **options)

        setattr(os, name, counted)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_campaign_of_kills(name, fitted, tmp_path, monkeypatch):
    """20 SIGKILLs at random times; seeded. A store that was finished before the kill came is begun anew."""
    estimator, rng, kills, number = fitted(name), np.random.default_rng(0), 0, 0
    expected = written(estimator.store_gradients(tmp_path / "whole").gradient_store_.path)
    scores = estimator.transform(X_query)
    slowed(monkeypatch, 0.02)
    while kills < 20:
        folder = tmp_path / f"{number}"
        pid = started(estimator, folder)
        time.sleep(float(rng.uniform(0, 0.15)))
        kills += killed(pid)
        if written(folder).keys() == expected.keys():
            assert written(folder) == expected
            number += 1
    estimator.store_gradients(folder)
    assert written(folder) == expected
    assert estimator.transform(X_query).tobytes() == scores.tobytes()
