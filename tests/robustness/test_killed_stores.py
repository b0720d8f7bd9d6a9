"""A store of training gradients whose writers are killed: the next call goes on, and ends with the same bits."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest
from sklearn.base import clone

from sklearn_source import InfluenceFunctions, SourceAttribution, TracIn, config_context
from sklearn_source.base._gradient_store import GradientStore
from sklearn_source.utils._random import seeded
from tests._nets import make_net
from tests.robustness._kills import (
    NEEDS_FORK,
    killed,
    killed_at_every_operation,
    killed_while,
    started,
    wait_while,
    was_killed,
)

pytestmark = NEEDS_FORK
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


def writer(estimator, folder):
    """A process that writes the store: its id."""
    return started(lambda: estimator.store_gradients(folder))


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
            before = written(folder)
            pid = writer(estimator, folder)
            assert killed_while(pid, lambda before=before: len(written(folder)) == len(before))
            assert len(before) < len(written(folder)) < len(expected)
    times = {name: (folder / name).stat().st_mtime_ns for name in written(folder)}
    estimator.store_gradients(folder)
    assert written(folder) == expected
    assert times == {name: (folder / name).stat().st_mtime_ns for name in times}


def test_a_second_process_waits_for_stored_gradients(fitted, tmp_path, monkeypatch):
    estimator, path = fitted("tracin"), tmp_path / "store"
    with config_context(memory_budget=20_000):
        expected = estimator.store_gradients(tmp_path / "alone").transform(X_query)
        write, n_files = GradientStore.write, len(estimator.gradient_store_.slices)
        estimator.store_gradients(None)
        with monkeypatch.context() as patch:

            def slowly(self, *args):
                write(self, *args)
                time.sleep(0.5)

            patch.setattr(GradientStore, "write", slowly)
            pid = started(lambda: estimator.store_gradients(path))
        wait_while(lambda: not list(path.glob("rows-*")))
        threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
        with pytest.warns(UserWarning, match=f"process {pid} on .* waits until that ends"):
            estimator.store_gradients(path)
        assert was_killed(pid)
        assert len(list(path.glob("rows-*"))) == n_files > 1
        np.testing.assert_array_equal(estimator.transform(X_query), expected)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["alone", "store"]


def test_a_kill_at_every_file_operation(fitted, tmp_path):
    estimator = fitted("influence")
    expected = written(estimator.store_gradients(tmp_path / "whole").gradient_store_.path)
    scores = estimator.transform(X_query)
    for number in killed_at_every_operation(lambda number: estimator.store_gradients(tmp_path / f"{number}")):
        estimator.store_gradients(tmp_path / f"{number}")
        assert written(tmp_path / f"{number}") == expected, number
        assert estimator.transform(X_query).tobytes() == scores.tobytes()
    assert number > 5


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
        pid = writer(estimator, folder)
        time.sleep(float(rng.uniform(0, 0.15)))
        kills += killed(pid)
        if written(folder).keys() == expected.keys():
            assert written(folder) == expected
            number += 1
    estimator.store_gradients(folder)
    assert written(folder) == expected
    assert estimator.transform(X_query).tobytes() == scores.tobytes()
