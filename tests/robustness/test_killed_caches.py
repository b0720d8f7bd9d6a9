"""Caches whose writers are killed: what was finished stays, and the next call ends with the bits of one without."""

from __future__ import annotations

import itertools
import shutil
import time
import warnings

import numpy as np
import pytest
from sklearn.base import clone

from sklearn_source import AttributionEnsemble, InfluenceFunctions, LoRAEnsemble, SourceAttribution, TracIn
from sklearn_source.curvature import EKFAC
from sklearn_source.retraining import retrain_on_subsets
from sklearn_source.utils._random import seeded
from tests._nets import make_net
from tests.robustness._kills import NEEDS_FORK, killed, killed_at_every_operation, slow_down, started

pytestmark = NEEDS_FORK
_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(24, 3)).astype(np.float32)
y = (X[:, :1] - X[:, 1:2] ** 2).astype(np.float32)
X_query = _RNG.normal(size=(3, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def net():
    with seeded(0):
        return make_net(module__hidden=(4,)).fit(X, y)


def of_memory(net, folder):
    """Covariances of every checkpoint, and fitted curvatures."""
    methods = (SourceAttribution(n_segments=2, random_state=0), InfluenceFunctions(random_state=0))
    return np.stack([m.set_params(curvature=EKFAC(memory=folder)).fit(net, X, y).transform(X_query) for m in methods])


def of_one_curvature(net, folder):
    return InfluenceFunctions(curvature=EKFAC(memory=folder), random_state=0).fit(net, X, y).transform(X_query)


def of_retraining(net, folder, **options):
    settings = {"n_subsets": 4, "n_repeats": 1, "random_state": 0, **options}
    return retrain_on_subsets(net, X, y, X_query, cache=folder, **settings).outputs


def one_by_one(net, folder):
    return of_retraining(net, folder, engine="joblib")


def two_of_them(net, folder):
    return of_retraining(clone(net).set_params(max_epochs=1), folder, engine="joblib", n_subsets=2)


def together(net, folder):
    return of_retraining(net, folder, engine="vectorized", chunk_size=2)


def of_ensemble(net, folder):
    bare = clone(net).set_params(max_epochs=1)
    ensemble = AttributionEnsemble(TracIn(bare), n_members=3, random_state=0, cache=folder)
    return ensemble.fit(X, y).transform(X_query)


def of_adapters(net, folder):
    options = {"n_members": 3, "n_steps": 2, "rank": 1, "random_state": 0, "cache": folder}
    return LoRAEnsemble(TracIn(), **options).fit(net, X, y).transform(X_query)


WRITERS = {write.__name__: write for write in (of_memory, one_by_one, together, of_ensemble, of_adapters)}


def finished_entries(folder):
    """Names of what is there under its own name, a folder's files by their paths."""
    found = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {path for path in found if not any(part.startswith(".") for part in path.parts)}


def gone_on(write, net, folder, copy):
    """What the next call gives, on a copy of what the killed ones left; a word about damage is a failure."""
    shutil.copytree(folder, copy)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return write(net, copy)


@pytest.mark.parametrize("write", [of_one_curvature, two_of_them])
def test_a_kill_at_every_file_operation(write, net, tmp_path):
    expected = write(net, None)
    for number in killed_at_every_operation(lambda number: write(net, tmp_path / str(number))):
        folder, copy = tmp_path / str(number), tmp_path / f"{number} again"
        folder.mkdir(exist_ok=True)
        before = finished_entries(folder)
        assert gone_on(write, net, folder, copy).tobytes() == expected.tobytes()
        assert before <= finished_entries(copy)
    assert number > 2


@pytest.mark.slow
@pytest.mark.parametrize("name", list(WRITERS))
def test_campaign_of_kills(name, net, tmp_path):
    """30 SIGKILLs at random times; seeded. Two processes write at once in every third trial; both are killed."""
    write, expected, rng = WRITERS[name], WRITERS[name](net, None), np.random.default_rng(0)
    begun = time.monotonic()
    write(net, tmp_path / "timed")
    span = 1.5 * (time.monotonic() - begun) + 0.3
    kills, round_ = 0, 0
    folder = tmp_path / f"round {round_}"
    folder.mkdir()
    whole = finished_entries(tmp_path / "timed")

    def work():
        slow_down(0.02)
        write(net, folder)

    for trial in itertools.count():
        before = finished_entries(folder)
        pids = [started(work) for _ in range(2 if trial % 3 == 2 else 1)]
        time.sleep(float(rng.uniform(0, span)))
        kills += sum(killed(pid) for pid in pids)
        assert before <= finished_entries(folder)  # nothing is lost
        copy = tmp_path / f"copy {trial}"
        assert gone_on(write, net, folder, copy).tobytes() == expected.tobytes()
        shutil.rmtree(copy)
        if kills >= 30:
            break
        if len(finished_entries(folder)) >= len(whole):  # complete: from the beginning
            round_ += 1
            folder = tmp_path / f"round {round_}"
            folder.mkdir()
    print(name, "kills", kills, "trials", trial + 1, "rounds", round_ + 1)
