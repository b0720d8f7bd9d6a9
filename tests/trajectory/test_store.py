from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback
from torch import nn

from sklearn_source.trajectory import Stage, Trajectory, TrajectoryRecorder, _store
from sklearn_source.trajectory._checkpoint import Checkpoint


def assert_equal_tensors(first, second):
    assert list(first) == list(second)
    for name, value in first.items():
        assert value.dtype == second[name].dtype
        assert value.shape == second[name].shape
        assert torch.equal(value, second[name])


def assert_equal_trajectories(first, second):
    assert repr(first) == repr(second)
    assert first.parameter_names == second.parameter_names
    for one, other in zip(first.stages, second.stages):
        for name in ("index", "start", "end", "optimizer", "groups", "n_rows"):
            assert getattr(one, name) == getattr(other, name)
        for name, values in one.hyper.items():
            np.testing.assert_array_equal(values, other.hyper[name])
        np.testing.assert_array_equal(one.rows, other.rows)
        assert (one.row_hashes is None) == (other.row_hashes is None)
        if one.row_hashes is not None:
            assert other.row_hashes.dtype == np.uint64
            np.testing.assert_array_equal(one.row_hashes, other.row_hashes)
    assert len(first.checkpoints) == len(second.checkpoints)
    for one, other in zip(first.checkpoints, second.checkpoints):
        assert (one.step, one.stage, one.digest) == (other.step, other.stage, other.digest)
        assert one.parameter_shapes == other.parameter_shapes
        assert_equal_tensors(one.parameters, other.parameters)
        assert_equal_tensors(dict(sorted(one.buffers.items())), dict(sorted(other.buffers.items())))
        assert (one.optimizer_state is None) == (other.optimizer_state is None)
        for name, entries in (one.optimizer_state or {}).items():
            others = other.optimizer_state[name]
            assert set(entries) == set(others)
            for key, value in entries.items():
                assert type(value) is type(others[key])
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(others[key]))


@pytest.fixture
def trained(make_net, data):
    net = make_net(TrajectoryRecorder(3), optimizer=torch.optim.Adam, optimizer__weight_decay=0.1).fit(*data)
    with torch.no_grad():
        net.module_.last.bias.add_(1)  # so that the second stage has initial weights of its own
    return net.partial_fit(data[0][:12], data[1][:12])


def test_round_trip(trained, tmp_path):
    trajectory = Trajectory.from_net(trained)
    assert len(trajectory.stages) == 2
    trajectory.save(tmp_path / "there")
    loaded = Trajectory.load(tmp_path / "there")
    assert_equal_trajectories(trajectory, loaded)
    assert all(checkpoint.path is not None for checkpoint in loaded.checkpoints)
    loaded.save(str(tmp_path / "again"))
    assert_equal_trajectories(trajectory, Trajectory.load(str(tmp_path / "again")))
    assert_equal_trajectories(trajectory, pickle.loads(pickle.dumps(loaded)))
    assert json.loads((tmp_path / "there" / "trajectory.json").read_text())["version"] == 2


def test_round_trip_of_every_kind_of_tensor(tmp_path):
    parameters = {
        "half": torch.randn(3, 2).to(torch.bfloat16),
        "f16": torch.randn(3).to(torch.float16),
        "scalar": torch.tensor(2.0, dtype=torch.float64),
        "empty": torch.zeros(0, 3),
        "turned": torch.arange(6.0).reshape(2, 3).T,
        "odd:name/with.dots": torch.tensor([float("nan"), float("inf"), -0.0]),
    }
    state = {
        "half": {"step": 3, "decay": 0.5, "seen": True, "exp_avg": torch.randn(3, 2).to(torch.bfloat16)},
        "f16": {},
    }
    state["odd:name/with.dots"] = {"exp_avg": torch.ones(3)}
    point = Checkpoint(1, 0, parameters, {"flag": torch.tensor([True, False])}, state)
    hyper = {name: np.zeros((1, 1)) for name in ("lr", "momentum", "dampening", "weight_decay")}
    group = {"params": list(parameters), "betas": (0.9, 0.99), "eps": 1e-8, "fused": None, "amsgrad": False}
    stage = Stage(0, 0, 1, "Adam", (group,), hyper, 5, np.arange(5), None)
    Trajectory([point], [stage]).save(tmp_path)
    loaded = Trajectory.load(tmp_path)
    (read,) = loaded.checkpoints
    assert list(read.parameters) == list(parameters)
    for name, value in parameters.items():
        assert read.parameters[name].dtype == value.dtype
        assert torch.equal(read.parameters[name].nan_to_num(7), value.nan_to_num(7))
    assert read.buffers["flag"].tolist() == [True, False]
    assert read.optimizer_state["half"].keys() == state["half"].keys()
    assert read.optimizer_state["half"]["step"] == 3
    assert read.optimizer_state["half"]["seen"] is True
    assert read.optimizer_state["half"]["exp_avg"].dtype == torch.bfloat16
    assert read.optimizer_state["f16"] == {}
    assert torch.equal(read.optimizer_state["odd:name/with.dots"]["exp_avg"], torch.ones(3))
    assert loaded.stages[0].groups == (group,)
    assert loaded.stages[0].row_hashes is None


# A recorder that writes while it trains ---------------------------------------------------------------------


def test_on_disk_is_as_in_memory(make_net, data, tmp_path):
    def train(dirname):
        recorder = TrajectoryRecorder(3, dirname=dirname, optimizer_state=True)
        net = make_net(recorder, optimizer__momentum=0.9, max_epochs=7).fit(*data)
        return net.partial_fit(*data, epochs=2)

    in_memory = Trajectory.from_net(train(None))
    net = train(str(tmp_path / "run"))
    on_disk = Trajectory.from_net(net)
    assert_equal_trajectories(in_memory, on_disk)
    assert_equal_trajectories(in_memory, Trajectory.load(tmp_path / "run"))
    for checkpoint in on_disk.checkpoints:
        assert checkpoint.path.parent == tmp_path / "run"
        assert not checkpoint._parameters
    files = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert len(on_disk.observations) == 6
    assert len(files) == 2 + len(on_disk.checkpoints) + 6  # thinned files, old arrays and temporary files are gone
    assert_equal_trajectories(in_memory, Trajectory.from_net(pickle.loads(pickle.dumps(net))))


def test_few_files_while_training(make_net, data, tmp_path):
    class Count(Callback):
        def on_batch_end(self, net, **kwargs):
            self.most_ = max(getattr(self, "most_", 0), len(list(tmp_path.glob("checkpoint-*"))))

    count = Count()
    make_net(TrajectoryRecorder(3, dirname=tmp_path), [count], max_epochs=30).fit(*data)
    assert 4 <= count.most_ <= 12  # of 90 steps; those that an index names go with the next one


def test_interrupted_training_on_disk_has_its_last_weights(make_net, data, tmp_path):
    class Interrupt(Callback):
        def on_grad_computed(self, net, named_parameters, **kwargs):
            if len(net.history) == 2 and len(net.history[-1, "batches"]) == 3:
                raise KeyboardInterrupt

    # The interrupted forward pass moved the buffers, so the last file is written again.
    net = make_net(TrajectoryRecorder(4, dirname=tmp_path), [Interrupt()]).fit(*data)
    assert_equal_trajectories(Trajectory.from_net(net), Trajectory.load(tmp_path))
    last = Trajectory.load(tmp_path).checkpoints[-1]
    assert torch.equal(last.buffers["norm.running_mean"], net.module_.norm.running_mean)


def test_failed_training_leaves_the_stages_before_it(make_net, data, tmp_path):
    class Fail(Callback):
        def on_batch_begin(self, net, **kwargs):
            if len(net.history) == 5:
                raise RuntimeError("out of luck")

    net = make_net(TrajectoryRecorder(2, dirname=tmp_path), [Fail()]).fit(*data)
    before = Trajectory.from_net(net)
    with pytest.raises(RuntimeError, match="out of luck"):
        net.partial_fit(*data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where there is something of the second stage: it did not reach its end
        found = Trajectory.load(tmp_path)
    assert before.n_steps <= found.n_steps <= before.n_steps + 4  # the epoch that ended, where the index was written
    for one, other in zip(before.checkpoints, found.checkpoints):
        assert_equal_tensors(one.parameters, other.parameters)
    net = make_net(TrajectoryRecorder(2, dirname=tmp_path / "other"), [Fail()])
    with pytest.raises(RuntimeError, match="out of luck"):
        net.fit(*data, epochs=9)
    with pytest.warns(UserWarning, match="did not reach its end"):
        found = Trajectory.load(tmp_path / "other")
    assert 0 < found.n_steps <= 16


def test_directory_of_another_trajectory(make_net, data, tmp_path):
    foreign = tmp_path / "notes.txt"
    foreign.write_text("keep me")
    net = make_net(TrajectoryRecorder(2, dirname=tmp_path)).fit(*data)
    first = Trajectory.from_net(net)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for another in (net, make_net(TrajectoryRecorder(2, dirname=tmp_path))):
        with pytest.raises(ValueError, match="overwrite=True"):
            another.fit(*data)
    with pytest.raises(ValueError, match="overwrite=True"):
        Trajectory.from_net(make_net().fit(*data)).save(tmp_path)
    assert files == {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    again = make_net(TrajectoryRecorder(4, dirname=tmp_path, overwrite=True), lr=0.01).fit(*data)
    assert_equal_trajectories(Trajectory.load(tmp_path), Trajectory.from_net(again))
    assert foreign.read_text() == "keep me"
    again.fit(*data)
    assert Trajectory.load(tmp_path).n_steps == 12
    with pytest.raises(ValueError, match=r"checkpoint-000-000000012.safetensors: expected a complete.*missing"):
        _ = first.checkpoints[-1].parameters  # replaced under its feet


def test_foreign_files_are_never_replaced(make_net, data, tmp_path):
    for name in ("checkpoint-000-000000003.safetensors", "trajectory.json"):
        directory = tmp_path / name[:5]
        directory.mkdir()
        path = directory / name
        if name.endswith("json"):
            path.write_text("{}")
        else:
            save_file({"mine": torch.ones(2)}, str(path))
        before = path.read_bytes()
        with pytest.raises(ValueError, match=f"{name}.*not written by sklearn_source"):
            make_net(TrajectoryRecorder(dirname=directory, overwrite=True)).fit(*data)
        assert path.read_bytes() == before
        assert os.listdir(directory) == [name]
    with pytest.raises(ValueError, match="got a file"):
        make_net(TrajectoryRecorder(dirname=path)).fit(*data)


def test_copies_do_not_write_over_each_other(make_net, data, tmp_path):
    net = make_net(TrajectoryRecorder(2, dirname=tmp_path)).fit(*data)
    twin = copy.deepcopy(net)
    net.partial_fit(*data)
    with pytest.raises(ValueError, match="different directories"):
        twin.partial_fit(*data)
    assert_equal_trajectories(Trajectory.load(tmp_path), Trajectory.from_net(net))


def test_dirname_changed_between_stages(make_net, data, tmp_path):
    net = make_net(TrajectoryRecorder(2)).fit(*data)
    net.set_params(callbacks__TrajectoryRecorder__dirname=tmp_path)
    with pytest.raises(ValueError, match="dirname of the earlier stages"):
        net.partial_fit(*data)
    net.fit(*data)
    assert_equal_trajectories(Trajectory.load(tmp_path), Trajectory.from_net(net))


def test_fit_without_epochs_claims_no_second_directory(make_net, data, tmp_path):
    net = make_net(TrajectoryRecorder(2, dirname=tmp_path), max_epochs=0).fit(*data)
    net.partial_fit(*data, epochs=1)
    assert Trajectory.load(tmp_path).n_steps == 4


# What load refuses ------------------------------------------------------------------------------------------


@pytest.fixture
def saved(trained, tmp_path):
    Trajectory.from_net(trained).save(tmp_path / "saved")
    return tmp_path / "saved"


def one_of(saved, pattern="checkpoint-*"):
    return sorted(saved.glob(pattern))[2 if "point" in pattern else 0]


@pytest.mark.parametrize("pattern", ["checkpoint-*", "arrays-*"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "missing", "foreign"])
def test_damaged_file_is_named(saved, pattern, damage):
    path = one_of(saved, pattern)
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "foreign":
        save_file({"weight": torch.ones(2)}, str(path))
    else:
        path.write_bytes({"truncated": content[:-10], "empty": b"", "garbage": b"PK\x03\x04" + content}[damage])
    with pytest.raises(ValueError, match=path.name):
        Trajectory.load(saved)


def test_file_damaged_after_loading(saved):
    trajectory = Trajectory.load(saved)
    point = trajectory.checkpoints[1]
    content = point.path.read_bytes()
    point.path.write_bytes(content[:-4])
    for part in ("parameters", "buffers", "optimizer_state"):
        with pytest.raises(ValueError, match=f"{point.path.name}.*truncated"):
            getattr(point, part)
    # Other values under the right labels, as a flipped bit would give.
    tensors = load_file(trajectory.checkpoints[2].path)
    metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    save_file(tensors, str(point.path), metadata)
    with pytest.raises(ValueError, match=f"{point.path.name}.*damaged or was replaced"):
        _ = point.parameters


def test_checkpoints_exchanged(saved):
    files = sorted(saved.glob("checkpoint-*"))
    shutil.copy(files[1], files[0])
    with pytest.raises(ValueError, match=f"{files[0].name}: expected the checkpoint"):
        Trajectory.load(saved)


@pytest.mark.parametrize(
    "change, match",
    [
        (lambda index: index.update(version=3), "Upgrade sklearn_source"),
        (lambda index: index.update(format="other"), "another kind"),
        (lambda index: index.pop("stages"), "damaged"),
        (lambda index: index["checkpoints"][0].update(file="../../x.safetensors"), "no name of a checkpoint"),
        (lambda index: index["stages"].reverse(), "follow each other"),
    ],
)
def test_index_of_another_kind(saved, change, match):
    path = saved / "trajectory.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index | {"checksum": _store.checksum_of(index)}))
    with pytest.raises(ValueError, match=match):
        Trajectory.load(saved)


def test_index_unreadable_or_missing(saved, tmp_path):
    (saved / "trajectory.json").write_text("not json")
    with pytest.raises(ValueError, match=r"trajectory.json: expected the index"):
        Trajectory.load(saved)
    with pytest.raises(ValueError, match=r"nowhere/trajectory.json: expected the index"):
        Trajectory.load(tmp_path / "nowhere")


def test_saving_onto_itself_is_refused(saved):
    with pytest.raises(ValueError, match="already lives"):
        Trajectory.load(saved).save(saved, overwrite=True)


def test_a_failing_write_leaves_no_file(tmp_path, monkeypatch):
    from sklearn_source.trajectory import _files

    def fail(tensors, filename, metadata):
        with open(filename, "wb") as file:
            file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(_files, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        _files.write_tensors(tmp_path / "a.safetensors", {"a": torch.ones(1)}, {})
    assert not list(tmp_path.iterdir())


def test_repr_says_what_happened(trained):
    text = repr(Trajectory.from_net(trained))
    assert "21 steps, 2 stages, 8 checkpoints, 29 parameters" in text
    assert "Adam (lr 0.05, weight decay 0.1), 12 of 12 rows" in text


def test_large_module_order_of_names_survives(make_net, data, tmp_path):
    class Many(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(*(nn.Linear(3, 3) for _ in range(12)), nn.Linear(3, 1))

        def forward(self, x):
            return self.layers(x)

    net = make_net(TrajectoryRecorder(1, dirname=tmp_path), module=Many).fit(*data)
    names = [name for name, _ in net.module_.named_parameters()]  # 10 sorts before 2
    assert list(Trajectory.load(tmp_path).checkpoints[-1].parameters) == names
    assert list(Trajectory.load(tmp_path).parameter_names) == names


def test_every_clone_of_a_search_has_a_directory_of_its_own(make_net, data, tmp_path):
    net = make_net(TrajectoryRecorder(2, dirname=tmp_path / "all" / "{run}"))
    search = GridSearchCV(net, {"lr": [0.01, 0.02]}, cv=2).fit(*data)
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["000", "001", "002", "003", "004"]
    best = search.best_estimator_
    recorded = Trajectory.from_net(best)
    stored = Trajectory.load(tmp_path / "all" / "004")
    assert [point.digest for point in stored.checkpoints] == [point.digest for point in recorded.checkpoints]
    best.partial_fit(*data)  # a stage goes on in its directory, a new fit begins another
    assert len(Trajectory.load(tmp_path / "all" / "004").stages) == 2
    best.fit(*data)
    assert Trajectory.load(tmp_path / "all" / "005").n_steps == 12
    twins = [clone(net) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda twin: twin.fit(*data), twins))
    assert len(list((tmp_path / "all").iterdir())) == 10


def test_a_directory_that_a_clone_has_taken_says_what_to_do(make_net, data, tmp_path):
    net = make_net(TrajectoryRecorder(2, dirname=tmp_path))
    clone(net).fit(*data)
    with pytest.raises(ValueError, match=r"where clones train.*dirname='.*/\{run\}'"):
        clone(net).fit(*data)
