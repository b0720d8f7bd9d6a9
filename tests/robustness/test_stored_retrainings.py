"""Files of retraining: damaged ones are refused or trained anew, never read as something else."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

from sklearn_source.retraining import Retraining
from sklearn_source.retraining._storage import UnitCache, write_arrays

_RNG = np.random.default_rng(0)
GOOD = {
    "masks": _RNG.random((4, 6)) < 0.5,
    "outputs": _RNG.normal(size=(4, 2, 3)).astype(np.float32),
    "measurement": "prediction",
    "seeds": np.arange(8).reshape(4, 2),
}


def damaged(content, rng):
    content, way = bytearray(content), rng.integers(5)
    place = int(rng.integers(len(content)))
    if way < 3:
        content[place] ^= 1 << int(rng.integers(8))
    elif way == 3:
        del content[place:]
    else:
        content[place : place + 20] = rng.bytes(20)
    return bytes(content)


def said_by(retraining):
    return json.dumps(
        [retraining.masks.tolist(), retraining.outputs.tolist(), retraining.seeds.tolist(), retraining.measurement,
         retraining.settings, retraining.names, str(retraining.X_query), str(retraining.outputs.dtype)]
    )  # fmt: skip


def flips(folder, n_trials):
    """Damage both kinds of files: how often they were refused."""
    rng, refused = np.random.default_rng(0), 0
    path = Retraining(**GOOD, settings={"a": 1}, X_query=np.ones((3, 2))).save(folder / "truth.npz")
    (folder / "unit").mkdir()
    cache = UnitCache(folder / "unit")
    cache.write(["one", "two"], [np.ones(3, np.float32), np.zeros(3, np.float32)])
    (unit,) = cache.folder.glob("*.npz")
    known, outputs = said_by(Retraining.load(path)), {k: v.tolist() for k, v in cache.read(["one", "two"]).items()}
    for number in range(n_trials):
        file = (path, unit)[number % 2]
        before = file.read_bytes()
        file.write_bytes(damaged(before, rng))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if file == path:
                try:
                    found = said_by(Retraining.load(path))
                except ValueError:
                    found, refused = known, refused + 1
                assert found == known, number
            else:
                read = {k: v.tolist() for k, v in cache.read(["one", "two"]).items()}
                refused += not read
                assert read in ({}, outputs), number
        file.write_bytes(before)
    return refused


def test_flips_and_truncations(tmp_path):
    assert flips(tmp_path, 300) > 150


@pytest.mark.slow
def test_many_flips_and_truncations(tmp_path):
    assert flips(tmp_path, 10_000) > 5000


FOREIGN = {
    "texts": ({"outputs": np.array(["a"])}, {"units": ["a"]}),
    "no units": ({"outputs": np.ones((1, 3))}, {}),
    "units that are a number": ({"outputs": np.ones((1, 3))}, {"units": 5}),
    "units of nothing": ({"outputs": np.ones((1, 3))}, {"units": None}),
    "units of lists": ({"outputs": np.ones((1, 3))}, {"units": [[1]]}),
    "a list": ({"outputs": np.ones((1, 3))}, [1]),
    "no outputs": ({"a": np.ones(3)}, {"units": ["a"]}),
}


@pytest.mark.parametrize("kind", list(FOREIGN))
def test_foreign_files_stop_no_run(kind, tmp_path):
    cache = UnitCache(tmp_path)
    write_arrays(cache.folder / "foreign.npz", *FOREIGN[kind])
    assert cache.read(["a"]) == {}


BAD = {
    "outputs as texts": {"outputs": np.full((4, 2, 3), "a")},
    "outputs as objects": {"outputs": np.full((4, 2, 3), None)},
    "complex outputs": {"outputs": GOOD["outputs"].astype(complex)},
    "masks of integers": {"masks": GOOD["masks"].astype(int)},
    "ragged masks": {"masks": [[True], [True, False], [], []]},
    "negative seeds": {"seeds": -GOOD["seeds"]},
    "fractions of seeds": {"seeds": GOOD["seeds"] + 0.5},
    "seeds of nothing": {"seeds": None},
    "one text as names": {"names": "abcd"},
    "names that are a number": {"names": 4},
    "settings as text": {"settings": "fast"},
    "hashes as floats": {"row_hashes": np.ones(6)},
}


@pytest.mark.parametrize("kind", list(BAD))
def test_what_is_no_retraining(kind):
    with pytest.raises(ValueError, match="expected"):
        Retraining(**{**GOOD, **BAD[kind]})


def test_files_of_later_versions_are_refused(tmp_path):
    arrays = {name: GOOD[name] for name in ("masks", "outputs", "seeds")}
    about = {"format": "sklearn_source.Retraining", "version": 2, "measurement": "prediction"}
    saved = Retraining(**GOOD).save(tmp_path / "now.npz")
    with np.load(saved) as file:
        about["format"] = json.loads(file["about.json"].tobytes())["format"]
    path = write_arrays(tmp_path / "later.npz", arrays, about)
    with pytest.raises(ValueError, match="upgrade"):
        Retraining.load(path)
