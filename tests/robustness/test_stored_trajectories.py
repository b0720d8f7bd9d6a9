"""Trajectories on disk: other content is seen, and nothing is lost while something is replaced."""

from __future__ import annotations

import json
import os
import re
import signal
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from skorch.callbacks import Callback

from sklearn_source import SourceAttribution, Trajectory, TrajectoryRecorder
from sklearn_source.trajectory import _store
from sklearn_source.utils._atomic import remove_leftovers
from sklearn_source.utils._random import seeded
from tests._nets import make_net

_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(20, 3)).astype(np.float32)
y = (X[:, :1] - X[:, 1:2] ** 2).astype(np.float32)


def train(seed=0, **options):
    callbacks = options.pop("callbacks", [TrajectoryRecorder(n_checkpoints=4)])
    with seeded(seed):
        return make_net(
            module__hidden=(4,), optimizer=torch.optim.Adam, lr=0.01, callbacks=callbacks, **options
        ).fit(X, y)  # fmt: skip


@pytest.fixture(scope="module")
def net():
    return train()


def all_of(trajectory):
    """Everything that can be read of a trajectory, as nested lists of bytes and numbers."""

    def plain(value):
        if isinstance(value, torch.Tensor):
            return (
                str(value.dtype),
                tuple(value.shape),
                value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes(),
            )
        if isinstance(value, np.ndarray):
            return str(value.dtype), value.shape, value.tobytes()
        if isinstance(value, dict):
            return {str(key): plain(item) for key, item in sorted(value.items(), key=lambda pair: str(pair[0]))}
        return [plain(item) for item in value] if isinstance(value, (list, tuple)) else repr(value)

    points = [
        (p.step, p.stage, p.digest, p.parameters, p.buffers, p.optimizer_state, p.outside)
        for p in trajectory.checkpoints
    ]
    seen = [vars(o.load()) for o in trajectory.observations]
    return plain([points, [vars(stage) for stage in trajectory.stages], seen])


def damaged(content, rng):
    content, way = bytearray(content), rng.integers(5)
    place = int(rng.integers(len(content)))
    if way < 3:
        if rng.random() < 0.5 and content[:1] != b"{":  # in the header
            place = int(rng.integers(8 + int.from_bytes(content[:8], "little")))
        content[place] ^= 1 << int(rng.integers(8))
    elif way == 3:
        del content[place:]
    else:
        content[place : place + 20] = rng.bytes(20)
    return bytes(content)


def flips(net, folder, n_trials):
    Trajectory.from_net(net).save(folder)
    whole = all_of(Trajectory.load(folder))
    files, rng, refused = sorted(folder.iterdir()), np.random.default_rng(0), 0
    for _ in range(n_trials):
        file = files[rng.integers(len(files))]
        before = file.read_bytes()
        file.write_bytes(damaged(before, rng))
        try:
            found, said = all_of(Trajectory.load(folder)), ""
        except ValueError as error:
            found, said, refused = whole, str(error), refused + 1
        assert found == whole
        assert not said or re.search(r"\.json|\.safetensors", said)
        file.write_bytes(before)
    assert refused > 0.9 * n_trials


def test_flips_and_truncations(net, tmp_path):
    flips(net, tmp_path / "t", 150)


@pytest.mark.slow
def test_many_flips_and_truncations(net, tmp_path):
    flips(net, tmp_path / "t", 2000)


def test_edited_numbers_are_refused(net, tmp_path):
    Trajectory.from_net(net).save(tmp_path / "t")
    for file in sorted((tmp_path / "t").glob("*.safetensors")):
        before, tensors = file.read_bytes(), load_file(file)
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata()
        for name, value in list(tensors.items())[:6]:
            changed = {**tensors, name: value + 1 if value.dtype != torch.bool else ~value}
            save_file(changed, file, metadata)
            with pytest.raises(ValueError, match="damaged"):
                all_of(Trajectory.load(tmp_path / "t"))
        file.write_bytes(before)
    index = tmp_path / "t" / "trajectory.json"
    said = json.loads(index.read_text())
    said["stages"][0]["groups"][0]["betas"] = [0.5, 0.999]
    index.write_text(json.dumps(said))
    with pytest.raises(ValueError, match=r"trajectory\.json: expected the index as it was recorded"):
        Trajectory.load(tmp_path / "t")


def test_a_folder_of_an_earlier_version_loads(net, tmp_path):
    Trajectory.from_net(net).save(tmp_path / "t")
    whole, index = all_of(Trajectory.load(tmp_path / "t")), tmp_path / "t" / "trajectory.json"
    said = json.loads(index.read_text())
    del said["checksum"], said["seal"]
    for entry in (*said["checkpoints"], *said["observations"]):
        del entry["seal"]
    index.write_text(json.dumps(said | {"version": 1}))
    assert all_of(Trajectory.load(tmp_path / "t")) == whole


def test_a_fitted_estimator_does_not_follow_the_files(net, tmp_path):
    Trajectory.from_net(net).save(tmp_path / "t")
    point = Trajectory.load(tmp_path / "t").checkpoints[-1]
    held = [*point.parameters.values(), *point.optimizer_state["layers.0.weight"].values()]
    before = [value.clone() if isinstance(value, torch.Tensor) else value for value in held]
    estimator = SourceAttribution(n_segments=2, trajectory=tmp_path / "t").fit(net, X, y)
    scores = estimator.transform(X[:3])
    for file in (tmp_path / "t").glob("checkpoint*"):
        with open(file, "r+b") as opened:  # in place, as cp and rsync --inplace do
            opened.write(b"\x3f" * file.stat().st_size)
        os.truncate(file, 0)
    for value, old in zip(held, before):
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(old))
    np.testing.assert_array_equal(estimator.transform(X[:3]), scores)


def as_stored(trajectory, folder):
    trajectory.save(folder)
    return all_of(Trajectory.load(folder))


class Killed(BaseException):
    """The process ends here: nothing after it runs."""


def killed_at(number, monkeypatch, function):
    """Run a function that is killed at a file operation: whether it was."""
    left = [number]

    def dying(operation):
        def act(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0:  # and whatever cleans up after it does nothing either
                raise Killed
            return operation(*args, **kwargs)

        return act

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying(os.replace))
        patch.setattr(Path, "unlink", dying(Path.unlink))
        try:
            function()
        except Killed:
            return True
    return False


def test_overwriting_is_all_or_nothing(net, tmp_path, monkeypatch):
    old, new = Trajectory.from_net(net), Trajectory.from_net(train(1))
    either, kills = [as_stored(old, tmp_path / "old"), as_stored(new, tmp_path / "new")], 0
    for number in range(200):
        folder = tmp_path / str(number)
        old.save(folder)
        if not killed_at(number, monkeypatch, lambda folder=folder: new.save(folder, overwrite=True)):
            break
        kills += 1
        assert all_of(Trajectory.load(folder)) in either
        new.save(folder, overwrite=True)  # what was left behind goes with it
        assert all_of(Trajectory.load(folder)) == either[1]
        assert not list(folder.glob(".*"))
        index = json.loads((folder / "trajectory.json").read_text())
        named = {entry["file"] for entry in (*index["checkpoints"], *index["observations"])}
        assert {file.name for file in folder.glob("*.safetensors")} == named | {
            f"arrays-{index['revision']}.safetensors"
        }
    assert kills > 10


def test_a_second_stage_that_is_killed_leaves_the_first(tmp_path, monkeypatch):
    kills = 0
    for number in range(0, 200, 7):
        folder = tmp_path / str(number)
        net = train(callbacks=[TrajectoryRecorder(dirname=folder, n_checkpoints=3)])
        first = all_of(Trajectory.load(folder))
        if not killed_at(number, monkeypatch, lambda net=net: net.partial_fit(X, y)):
            break
        kills += 1
        found = quietly_loaded(folder)
        assert all_of(found)[0][: len(first[0])] == first[0]
        assert found.n_steps <= 18  # and what there is of the second
    assert kills > 3


def test_no_space_left(net, tmp_path, monkeypatch):
    Trajectory.from_net(net).save(tmp_path / "t")

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(_store, "write_checkpoint", full)
        with pytest.raises(OSError, match="No space"):
            Trajectory.from_net(train(1)).save(tmp_path / "t", overwrite=True)
    assert all_of(Trajectory.load(tmp_path / "t")) == as_stored(Trajectory.from_net(net), tmp_path / "same")


class Other(Callback):
    """Lets another training record into the same folder."""

    def __init__(self, folder):
        self.folder = folder

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            train(1, callbacks=[TrajectoryRecorder(dirname=self.folder, overwrite=True)])


def test_two_recorders_on_one_folder(tmp_path):
    callbacks = [("recorder", TrajectoryRecorder(dirname=tmp_path / "t")), ("other", Other(tmp_path / "t"))]
    with pytest.raises(ValueError, match="another training"):
        train(callbacks=callbacks)
    assert Trajectory.load(tmp_path / "t").n_steps == Trajectory.from_net(train(1)).n_steps


def quietly_loaded(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it did not reach its end
        return Trajectory.load(folder)


def test_a_first_stage_that_is_killed_loads_up_to_its_last_checkpoint(tmp_path, monkeypatch):
    whole = all_of(Trajectory.from_net(train()))[0]
    for number in (0, 12, 20):
        folder, seen = tmp_path / str(number), []
        recorder = TrajectoryRecorder(dirname=folder, n_checkpoints=4)
        assert killed_at(number, monkeypatch, lambda recorder=recorder: train(callbacks=[recorder]))
        if number:
            found = quietly_loaded(folder)
            seen = all_of(found)[0]
            assert 0 < found.n_steps <= 9
            SourceAttribution(n_segments=1, trajectory=found)  # what can be done with it is the user's to say
        else:
            with pytest.raises(ValueError, match="did not reach its end"):
                Trajectory.load(folder)
        weights = [point[3] for point in whole]
        assert all(point[3] in weights for point in seen if point[0] in [other[0] for other in whole])


@pytest.mark.parametrize("first", [0, 1, 5, 9])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("I/O error: No space left")])
def test_a_full_disk_ends_no_training(first, error, tmp_path, monkeypatch):
    left = [first]

    def full(function):
        def write(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                raise error
            return function(*args, **kwargs)

        return write

    expected = as_stored(Trajectory.from_net(train()), tmp_path / "same")
    with monkeypatch.context() as patch:
        for module, name in ((_store, "write_checkpoint"), (_store, "write_observation"), (_store, "write_tensors")):
            patch.setattr(module, name, full(getattr(module, name)))
        with pytest.warns(UserWarning, match=r"recorded in .*t .*kept in memory.*save\(another_path\)") as said:
            net = train(callbacks=[TrajectoryRecorder(dirname=tmp_path / "t", n_checkpoints=4)])
    assert len([warning for warning in said if "cannot be recorded" in str(warning.message)]) == 1
    assert as_stored(Trajectory.from_net(net), tmp_path / "elsewhere") == expected
    net.partial_fit(X, y)
    assert Trajectory.from_net(net).n_steps == 18


def test_a_folder_that_cannot_be_made_ends_no_training(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.warns(UserWarning, match="cannot be recorded in .*kept in memory"):
        net = train(callbacks=[TrajectoryRecorder(dirname=tmp_path / "file" / "t", n_checkpoints=4)])
    assert all_of(Trajectory.from_net(net))[0] == all_of(Trajectory.from_net(train()))[0]


def test_what_writers_left_behind_is_collected(tmp_path):
    """Old temporary files alone: a young one may be in the making, and others are not ours."""
    left = [".checkpoint-000-000000001.safetensors." + "a" * 32 + ".tmp", ".key." + "b" * 32 + ".tmp"]
    for name in (*left, ".mine.tmp", "notes.txt", ".young." + "c" * 32 + ".tmp"):
        (tmp_path / name).write_text("")
        if "young" not in name:
            os.utime(tmp_path / name, (0, 0))
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".mine.tmp", "notes.txt", ".young." + "c" * 32 + ".tmp"}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_processes(net, tmp_path):
    """SIGKILL at random times of processes that overwrite, and that record a training anew; seeded."""
    rng, old, new = np.random.default_rng(0), Trajectory.from_net(net), Trajectory.from_net(train(1))
    either, folder, kills = [as_stored(old, tmp_path / "old"), as_stored(new, tmp_path / "new")], tmp_path / "t", 0
    old.save(folder)

    def record():
        train(1, callbacks=[TrajectoryRecorder(dirname=folder, overwrite=True, n_checkpoints=4)])

    def start(trial):
        pid = os.fork()
        if not pid:
            try:
                record() if trial % 2 else (old if trial % 4 else new).save(folder, overwrite=True)
            finally:
                os._exit(0)
        return pid

    def took(trial):
        start_of = time.perf_counter()
        os.waitpid(start(trial), 0)
        return time.perf_counter() - start_of

    longest = [
        min(took(trial) for _ in range(3)) for trial in (0, 1)
    ]  # by what a machine needs, or it is done too soon
    for trial in range(400):
        pid = start(trial)
        time.sleep(float(rng.uniform(0, longest[trial % 2])))
        os.kill(pid, signal.SIGKILL)
        kills += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        assert all_of(Trajectory.load(folder))[0] in [one[0] for one in either]
        if kills == 100:
            break
    assert kills == 100
