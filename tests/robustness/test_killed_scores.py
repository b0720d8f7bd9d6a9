"""A file of scores whose writers are killed: the next call goes on, and ends with the bits of a call that was not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

from sklearn_source import TRAK, InfluenceFunctions, SourceAttribution, TracIn, config_context
from sklearn_source.base._score_slabs import ScoreSlabs
from sklearn_source.utils._file_lock import FileLock
from sklearn_source.utils._random import seeded
from tests._nets import make_net
from tests.robustness._kills import (
    NEEDS_FORK,
    killed,
    killed_at_every_operation,
    killed_while,
    started,
    wait_while,
)

pytestmark = NEEDS_FORK
ROOT = Path(__file__).resolve().parents[2]
_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(24, 3)).astype(np.float32)
y = (X[:, :1] - X[:, 1:2] ** 2).astype(np.float32)
X_query = _RNG.normal(size=(17, 3)).astype(np.float32)
METHODS = {
    "source": SourceAttribution(n_segments=2, random_state=0),
    "influence": InfluenceFunctions(random_state=0),
    "tracin": TracIn(),
    "trak": TRAK(n_components=8, random_state=0),
}


@pytest.fixture(scope="module")
def net():
    with seeded(0):
        return make_net().fit(X, y)


def record_of(path):
    return path.with_name(f"{path.name}.progress.json")


def writer(fitted, path):
    """A process that writes the file: its id."""
    return started(lambda: fitted.transform(X_query, out=path))


def n_done(path):
    if not record_of(path).exists():
        return 0
    return sum(stop - start for start, stop in json.loads(record_of(path).read_text())["done"])


def slowed(monkeypatch, seconds):
    """Every write takes a while, so that a kill meets one."""
    original = ScoreSlabs.finish

    def finish(self):
        original(self)
        time.sleep(seconds)

    monkeypatch.setattr(ScoreSlabs, "finish", finish)


def test_killed_processes_are_gone_on_from(net, tmp_path, monkeypatch):
    """Three SIGKILLs, each when a block more is there."""
    fitted, path = clone(METHODS["source"]).fit(net, X, y), tmp_path / "scores.npy"
    with config_context(memory_budget=3000):
        expected, before = fitted.transform(X_query), 0
        with monkeypatch.context() as patch:
            slowed(patch, 0.25)
            for _ in range(3):
                assert killed_while(writer(fitted, path), lambda before=before: n_done(path) == before)
                assert before < n_done(path) < len(X_query)
                before = n_done(path)
        assert fitted.transform(X_query, out=path).tobytes() == expected.tobytes()


def test_a_second_writer_stops_and_a_killed_one_is_in_nobodys_way(net, tmp_path, monkeypatch):
    fitted, path = clone(METHODS["source"]).fit(net, X, y), tmp_path / "scores.npy"
    with config_context(memory_budget=3000):
        expected = fitted.transform(X_query)
        with monkeypatch.context() as patch:
            slowed(patch, 0.5)
            pid = writer(fitted, path)
            wait_while(lambda: not n_done(path))
            with pytest.raises(BlockingIOError, match=f"process {pid} on .* is writing it"):
                fitted.transform(X_query, out=path)
            assert killed(pid)
        before = n_done(path)
        assert 0 < before < len(X_query)
        assert fitted.transform(X_query, out=path).tobytes() == expected.tobytes()
    held = FileLock(path)
    assert held.take()
    assert fitted.transform(X_query, out=path).tobytes() == expected.tobytes()  # it is finished: nothing to write
    held.release()
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".json", ".npy"]


def test_a_kill_at_every_file_operation(net, tmp_path):
    fitted = clone(METHODS["tracin"]).fit(net, X, y)
    with config_context(memory_budget=6000):
        expected = fitted.transform(X_query)
        for number in killed_at_every_operation(lambda n: fitted.transform(X_query, out=tmp_path / f"{n}.npy")):
            assert fitted.transform(X_query, out=tmp_path / f"{number}.npy").tobytes() == expected.tobytes(), number
    assert number > 10


def fitted_anew(name):
    with seeded(0):
        net = make_net().fit(X, y)
    return clone(METHODS[name]).set_params(measurement=twice).fit(net, X, y)


def twice(output, target):
    return 2.0 * output[:, 0]


@pytest.mark.slow
def test_another_process_knows_the_file(tmp_path):
    """Its hashes of strings, and with them the order of sets, are others."""
    script = f"""
    import sys, types
    sys.path.insert(0, {str(ROOT)!r})
    sys.modules["tests"] = types.ModuleType("tests")  # some packages install one of that name
    sys.modules["tests"].__path__ = [{str(ROOT / "tests")!r}]
    from tests.robustness import test_killed_scores as t
    for name in t.METHODS:
        t.fitted_anew(name).transform(t.X_query, out={str(tmp_path)!r} + f"/{{name}}.npy")
    """
    for seed in ("1", "3"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=environment, check=True)
    for name in METHODS:
        fitted = fitted_anew(name)
        found = fitted.transform(X_query, out=tmp_path / f"{name}.npy")
        assert found.tobytes() == fitted.transform(X_query).tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["source", "influence", "trak"])
def test_campaign_of_kills(name, net, tmp_path, monkeypatch):
    """20 SIGKILLs at random times; seeded. A file that was finished before the kill came is begun anew."""
    fitted, path, rng = clone(METHODS[name]).fit(net, X, y), tmp_path / "scores.npy", np.random.default_rng(0)
    slowed(monkeypatch, 0.02)
    with config_context(memory_budget=2000):
        expected, kills = fitted.transform(X_query), 0
        while kills < 20:
            pid = writer(fitted, path)
            time.sleep(float(rng.uniform(0, 0.12)))
            kills += killed(pid)
            if n_done(path) == len(X_query):
                assert fitted.transform(X_query, out=path).tobytes() == expected.tobytes()
                path.unlink()
        assert fitted.transform(X_query, out=path).tobytes() == expected.tobytes()
