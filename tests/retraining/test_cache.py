"""A retraining that was interrupted goes on where it was, and ends with the same bits."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import sklearn_source
from sklearn_source.retraining import Retraining, _engines, leave_one_out, retrain_on_subsets
from tests.retraining._problems import make_net, rows

SMALL = {"n_subsets": 4, "n_repeats": 2, "random_state": 0}


@pytest.fixture
def trained(monkeypatch):
    """How many networks each call of an engine trains for keeps."""
    counts = []
    original = _engines.JoblibEngine.__call__

    def counting(self, units):
        counts.append(len(units))
        return original(self, units)

    monkeypatch.setattr(_engines.JoblibEngine, "__call__", counting)
    return counts


def retrain(cache, net=None, data=None, **options):
    X, y, X_query = rows() if data is None else data
    return retrain_on_subsets(net or make_net(), X, y, X_query, cache=cache, **{**SMALL, **options})


@pytest.mark.parametrize("engine", ["vectorized", "joblib"])
def test_a_second_run_trains_nothing(tmp_path, trained, engine):
    one = retrain(tmp_path, engine=engine, chunk_size=3)
    assert sum(trained) == 8
    two = retrain(tmp_path, engine=engine, chunk_size=3)
    assert sum(trained) == 8
    np.testing.assert_array_equal(one.outputs, two.outputs)
    assert (one.settings["from_cache"], two.settings["from_cache"]) == (0, 8)
    np.testing.assert_array_equal(retrain(None, engine=engine, chunk_size=3).outputs, one.outputs)


def test_more_subsets_and_repeats_train_only_those(tmp_path, trained):
    retrain(tmp_path)
    more = retrain(tmp_path, n_subsets=5, n_repeats=3)
    assert sum(trained) == 8 + 7
    np.testing.assert_allclose(more.outputs, retrain(None, n_subsets=5, n_repeats=3).outputs, atol=1e-6)


def test_an_interrupted_run_keeps_what_is_finished(tmp_path, monkeypatch):
    original, calls = _engines.JoblibEngine.__call__, []

    def interrupted(self, units):
        calls.append(units)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, units)

    monkeypatch.setattr(_engines.JoblibEngine, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        retrain(tmp_path, chunk_size=3)
    assert retrain(tmp_path, chunk_size=3).settings["from_cache"] == 6


def test_damaged_and_half_written_files_are_trained_again(tmp_path):
    one = retrain(tmp_path, chunk_size=3)
    files = sorted(tmp_path.glob("*/*.npz"))
    assert len(files) == 3
    files[0].write_bytes(files[0].read_bytes()[:100])
    (files[0].parent / ".x.npz.tmp").write_bytes(b"half")
    two = retrain(tmp_path, chunk_size=3)
    assert two.settings["from_cache"] in (5, 6)
    np.testing.assert_array_equal(one.outputs, two.outputs)


FINGERPRINT = """
import functools, numpy as np, torch
from skorch.callbacks import EarlyStopping, LRScheduler
from skorch import NeuralNetClassifier
from sklearn_source.modules import MLP
from sklearn_source.retraining import retrain_on_subsets

rng = np.random.default_rng(0)
X, y = rng.normal(size=(20, 3)).astype("f4"), rng.integers(0, 2, 20)
net = NeuralNetClassifier(functools.partial(MLP, hidden=(4,), n_outputs=2), train_split=None, verbose=0, max_epochs=1,
                          criterion=torch.nn.CrossEntropyLoss, criterion__weight=torch.tensor([1.0, 2.0]),
                          optimizer__momentum=0.9, optimizer__param_groups=[("*bias", {"lr": 0.1})],
                          callbacks=[("a", LRScheduler("StepLR", step_size=1)), EarlyStopping("train_loss")])
found = retrain_on_subsets(net, {"X": X}, y, {"X": X[:4]}, y[:4], n_subsets=1, n_repeats=1, random_state=0)
fingerprint = found.settings["fingerprint"]
"""


def test_every_process_names_a_retraining_alike():
    here = {}
    exec(FINGERPRINT, here)
    environment = {**os.environ, "PYTHONPATH": str(Path(sklearn_source.__file__).parents[1]), "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", FINGERPRINT + "print(fingerprint)"]
    there = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()
    assert there == here["fingerprint"]


X, Y, X_QUERY = rows()
OTHER = {
    "rate": {"net": make_net(lr=0.04)},
    "module parameter": {"net": make_net(module__hidden=(8, 9))},
    "optimizer parameter": {"net": make_net(optimizer__momentum=0.1)},
    "epochs": {"net": make_net(max_epochs=5)},
    "row": {"data": (X + (np.arange(len(X)) == 3)[:, None], Y, X_QUERY)},
    "target": {"data": (X, Y + (np.arange(len(X)) == 3)[:, None], X_QUERY)},
    "order of rows": {"data": (X[::-1].copy(), Y[::-1].copy(), X_QUERY)},
    "query": {"data": (X, Y, X_QUERY + 1)},
    "measurement": {"measurement": "neg_loss", "y_query": Y[: len(X_QUERY)]},
    "seed": {"random_state": 1},
}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A cache that one retraining wrote, which no test writes to."""
    folder = tmp_path_factory.mktemp("first")
    retrain(folder)
    return folder


@pytest.mark.parametrize("name", OTHER)
def test_anything_else_is_another_retraining(tmp_path, first, trained, name):
    shutil.copytree(first, tmp_path, dirs_exist_ok=True)
    other = retrain(tmp_path, **OTHER[name])
    assert other.settings["from_cache"] == 0
    assert sum(trained) == 8


def test_what_changes_nothing_is_the_same_retraining(tmp_path):
    one = retrain(tmp_path)
    for options in ({"net": make_net(verbose=1)}, {"engine": "joblib"}, {"n_jobs": 1}, {"random_state": np.int32(0)}):
        two = retrain(tmp_path, **options)
        assert two.settings["from_cache"] == 8
        np.testing.assert_array_equal(one.outputs, two.outputs)


def test_one_folder_for_several_kinds(tmp_path):
    retrain(tmp_path)
    kwargs = {"rows": [1, 2], "random_state": 0, "cache": tmp_path}
    kept, renormalised = (leave_one_out(make_net(), X, Y, X_QUERY, renormalize=r, **kwargs) for r in (False, True))
    assert (kept.settings["from_cache"], renormalised.settings["from_cache"]) == (0, 0)
    assert leave_one_out(make_net(), X, Y, X_QUERY, **kwargs).settings["from_cache"] == 3


def test_a_cache_needs_a_seed(tmp_path):
    with pytest.raises(ValueError, match="random_state as an integer"):
        retrain(tmp_path, random_state=None)


SCRIPT = """
import sys
import torch
from skorch import NeuralNetRegressor
from sklearn_source.datasets import load_concrete_split
from sklearn_source.modules import MLP
from sklearn_source.retraining import retrain_on_subsets

torch.set_num_threads(1)
split = load_concrete_split()
net = NeuralNetRegressor(MLP, module__hidden=(16,), lr=0.01, optimizer__momentum=0.9, batch_size=32, max_epochs=3,
                         train_split=None, verbose=0, iterator_train__shuffle=True)
retrain_on_subsets(net, split.X_train[:200], split.y_train[:200], split.X_query, n_subsets=30, n_repeats=2,
                   random_state=0, engine=sys.argv[1], chunk_size=2, cache=sys.argv[2]).save(sys.argv[3])
"""


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["vectorized", "joblib"])
def test_killed_at_ten_random_moments(tmp_path, engine):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(sklearn_source.__file__).parents[1])}

    def start(cache, result):
        command = [sys.executable, str(script), engine, str(tmp_path / cache), str(tmp_path / result)]
        return subprocess.Popen(command, env=environment)

    begun = time.monotonic()
    assert start("whole", "whole.npz").wait() == 0
    took = time.monotonic() - begun
    n_files = len(list((tmp_path / "whole").glob("*/*.npz")))
    rng, kills, counts = np.random.default_rng(0), 0, []
    while kills < 10:
        process = start("killed", "killed.npz")
        # Let it write something first, or the ten moments would all lie in the imports.
        before, deadline = len(list((tmp_path / "killed").glob("*/*.npz"))), time.monotonic() + 10 * took
        while len(list((tmp_path / "killed").glob("*/*.npz"))) <= before and time.monotonic() < deadline:
            assert process.poll() is None, "it finished before ten kills"
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.08 * took / n_files))
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        counts.append(len(list((tmp_path / "killed").glob("*/*.npz"))))
    assert counts[-1] < n_files
    assert start("killed", "killed.npz").wait() == 0
    whole, killed = (Retraining.load(tmp_path / name) for name in ("whole.npz", "killed.npz"))
    assert killed.outputs.tobytes() == whole.outputs.tobytes()
    assert len(list((tmp_path / "killed").glob("*/*.npz"))) == n_files
    assert killed.settings["from_cache"] == counts[-1] * (2 if engine == "vectorized" else 1)
