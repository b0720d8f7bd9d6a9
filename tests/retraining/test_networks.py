"""Networks trained at once with a record are those that ``net.fit`` trains, record and all; and they can be kept."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from skorch.callbacks import Checkpoint, EpochScoring, GradientNormClipping, LRScheduler, PrintLog
from skorch.dataset import ValidSplit
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR, StepLR

from sklearn_source import TrajectoryRecorder
from sklearn_source.modules import MLP
from sklearn_source.network import train_clone
from sklearn_source.retraining import _fit_engines, _networks, train_networks
from sklearn_source.trajectory import Trajectory, segment_flow
from tests.retraining._problems import classifier, double_mlp, make_net, rows

SEEDS = [3, 11, 4]
ADAMW = {"optimizer": torch.optim.AdamW, "lr": 0.01, "optimizer__weight_decay": 0.1}
MOMENTUM = {"optimizer__momentum": 0.9, "optimizer__weight_decay": 1e-3, "lr": 0.02}


def double_classes(n_outputs):
    return double_mlp(n_outputs=n_outputs)


def lazy():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.LazyLinear(1)).double()


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 1)
        self.last.bias.requires_grad_(False)
        self.double()

    def forward(self, X):
        return self.last(torch.tanh(self.norm(self.first(X))))


class OwnOptimizer(torch.optim.SGD):
    """Its step may be anything."""


class Dropping(MLP):
    def __init__(self):
        super().__init__(n_features=4, hidden=(8,))
        self.drop = nn.Dropout(0.5)

    def forward(self, X):
        return super().forward(self.drop(X))


def double(**options):
    return make_net(module=double_mlp, **options)


NETS = {
    "SGD with momentum": lambda: double(**MOMENTUM),
    "SGD with momentum, classes": lambda: classifier(module=double_classes, **MOMENTUM),
    "AdamW": lambda: double(**ADAMW),
    "AdamW, classes": lambda: classifier(module=double_classes, **ADAMW),
    "steps": lambda: double(**MOMENTUM, callbacks=[LRScheduler(StepLR, step_size=2, gamma=0.3)]),
    "one cycle, classes": lambda: classifier(
        module=double_classes, **ADAMW,
        callbacks=[LRScheduler(OneCycleLR, max_lr=0.05, total_steps=200, step_every="batch")],
    ),
    "groups": lambda: double(optimizer__param_groups=[("layers.0.*", {"lr": 0.001}), ("*bias", {"momentum": 0.5})]),
    "validation": lambda: double(train_split=ValidSplit(5), callbacks=[EpochScoring("r2")]),
    "validation, drawn": lambda: double(
        train_split=ValidSplit(5), iterator_valid__shuffle=True, iterator_train__drop_last=True
    ),
    "in order": lambda: double(iterator_train__shuffle=False, optimizer=torch.optim.RMSprop, lr=0.002),
    "norm, frozen": lambda: make_net(module=Norm, batch_size=9, **MOMENTUM),
    "lazy": lambda: make_net(module=lazy, train_split=ValidSplit(5)),
    "its own recorder": lambda: double(**ADAMW, callbacks=[PrintLog(), TrajectoryRecorder(2, optimizer_state=False)]),
}  # fmt: skip


@pytest.fixture
def reasons(monkeypatch):
    """Why each engine was chosen."""
    found, choose = [], _networks.choose_for_fit

    def noting(*args):
        engine, reason = choose(*args)
        found.append((engine.name, reason))
        return engine, reason

    monkeypatch.setattr(_networks, "choose_for_fit", noting)
    return found


def data(name):
    X, y, _ = rows("classes" if "classes" in name else "regression", np.float64)
    return X, y


def assert_same_record(one, two):
    assert [c.step for c in one.checkpoints] == [c.step for c in two.checkpoints]
    for a, b in zip(one.checkpoints, two.checkpoints):
        pairs = [(a.parameters, b.parameters), (a.buffers, b.buffers)]
        assert (a.optimizer_state or {}).keys() == (b.optimizer_state or {}).keys()
        pairs += [(kept, b.optimizer_state[name]) for name, kept in (a.optimizer_state or {}).items()]
        for mine, theirs in pairs:
            assert mine.keys() == theirs.keys()
            for name, value in mine.items():
                torch.testing.assert_close(torch.as_tensor(value), torch.as_tensor(theirs[name]), atol=1e-9, rtol=1e-7)
        assert a.outside.keys() == b.outside.keys()
        assert (a.outside["epochs"], a.outside["batches"]) == (b.outside["epochs"], b.outside["batches"])
    for a, b in zip(one.stages, two.stages, strict=True):
        assert (a.start, a.end, a.optimizer, a.n_rows, a.continues, a.edits) == (
            b.start, b.end, b.optimizer, b.n_rows, b.continues, b.edits,
        )  # fmt: skip
        assert [group["params"] for group in a.groups] == [group["params"] for group in b.groups]
        for name, values in a.hyper.items():
            np.testing.assert_array_equal(values, b.hyper[name])
        np.testing.assert_array_equal(a.rows, b.rows)
        np.testing.assert_array_equal(a.row_hashes, b.row_hashes)
        assert (a.draws or {}).keys() == (b.draws or {}).keys()
        for step, drawn in (a.draws or {}).items():
            np.testing.assert_array_equal(drawn, b.draws[step])
    assert one.integrated_learning_rate(0, one.n_steps) == two.integrated_learning_rate(0, two.n_steps)
    seen = {o.step: o for o in two.observations}
    assert len({o.step for o in one.observations} & seen.keys()) >= 2  # the first is not observed where layers are lazy
    for a, b in ((o, seen[o.step]) for o in one.observations if o.step in seen):
        for mine, theirs in ((a.parameters, b.parameters), (a.gradients, b.gradients)):
            assert mine.keys() == theirs.keys()
            for name, value in mine.items():
                torch.testing.assert_close(value, theirs[name], atol=1e-9, rtol=1e-7)
        for (mine, _), (theirs, _) in zip(a.batches, b.batches, strict=True):
            for ours, other in zip(mine, theirs, strict=True):
                torch.testing.assert_close(ours, other, check_dtype=False)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler")
@pytest.mark.parametrize("name", NETS)
def test_the_networks_that_skorch_trains_with_their_records(name, reasons, capsys):
    net, (X, y) = NETS[name](), data(name)
    state = torch.get_rng_state()
    nets, X_read, y_read = train_networks(net, X, y, SEEDS[:2], recorder=TrajectoryRecorder(4))
    assert reasons == [("vectorized", "a trial of it gave what skorch gives")]
    assert torch.equal(state, torch.get_rng_state())
    assert capsys.readouterr().out == ""
    for seed, own in zip(SEEDS[:2], nets, strict=True):
        expected, X_expected, y_expected = train_clone(net, X, y, seed=seed, recorder=TrajectoryRecorder(4))
        np.testing.assert_array_equal(X_read, X_expected)
        np.testing.assert_array_equal(y_read, y_expected)
        for (key, value), (other, found) in zip(
            expected.module_.state_dict().items(), own.module_.state_dict().items(), strict=True
        ):
            assert key == other
            torch.testing.assert_close(found, value, atol=1e-9, rtol=1e-7)
        assert_same_record(Trajectory.from_net(expected), Trajectory.from_net(own))
        assert own.history[:, "train_loss"] == pytest.approx(expected.history[:, "train_loss"])
        batches = "batches", slice(None), ("train_loss", "train_batch_size")
        for mine, theirs in zip(own.history[(slice(None), *batches)], expected.history[(slice(None), *batches)]):
            np.testing.assert_allclose(mine, theirs, rtol=1e-7)
        np.testing.assert_array_equal(own.predict(X).shape, expected.predict(X).shape)
        mine, theirs = (n.optimizer_.state_dict() for n in (own, expected))
        assert [group["lr"] for group in mine["param_groups"]] == [group["lr"] for group in theirs["param_groups"]]
        for kept, others in zip(mine["state"].values(), theirs["state"].values(), strict=True):
            for key, value in kept.items():
                torch.testing.assert_close(value, others[key], atol=1e-9, rtol=1e-7)
        assert vars(own).keys() == vars(expected).keys()


def test_the_metric_of_an_adaptive_training():
    """What methods make of the record: the integrated rate, and the preconditioner along the way."""
    X, y = data("AdamW")
    (own, _), _, _ = train_networks(double(**ADAMW), X, y, SEEDS[:2], recorder=TrajectoryRecorder(4))
    expected, _, _ = train_clone(double(**ADAMW), X, y, seed=SEEDS[0], recorder=TrajectoryRecorder(4))
    one, two = (Trajectory.from_net(net) for net in (own, expected))
    mine, theirs = (segment_flow(t, 0, t.n_steps, 0, t.checkpoints[1:], np.full(4, 0.25)) for t in (one, two))
    assert mine.rates == theirs.rates
    assert mine.preconditioner.keys() == theirs.preconditioner.keys() == set(one.parameter_names)
    for name, value in mine.preconditioner.items():
        torch.testing.assert_close(value, theirs.preconditioner[name], rtol=1e-7, atol=1e-12)


IN_TURN = {
    "draws": (lambda: make_net(module=Dropping), "Dropout draws random numbers"),
    "clips": (lambda: make_net(callbacks=[GradientNormClipping(1.0)], module=double_mlp), "GradientNormClipping"),
    "writes": (lambda: make_net(callbacks=[Checkpoint(dirname="{tmp}", monitor=None)]), "Checkpoint writes"),
    "records to a folder": (lambda: make_net(callbacks=[TrajectoryRecorder(dirname="{tmp}/{run}")]), "to a folder"),
    "generator": (lambda: make_net(iterator_train__generator=torch.Generator()), ""),
    "optimizer": (lambda: make_net(optimizer=OwnOptimizer), "OwnOptimizer is not known"),
}


@pytest.mark.parametrize("name", IN_TURN)
def test_what_cannot_be_trained_at_once_is_trained_by_skorch(name, reasons, tmp_path):
    make, reason = IN_TURN[name]
    X, y, _ = rows(dtype=np.float64 if name == "clips" else np.float32)
    one, two = make(), make()
    for net in (one, two):
        for callback in net.callbacks or ():
            if getattr(callback, "dirname", None):
                callback.dirname = str(callback.dirname).replace("{tmp}", str(tmp_path))
    found, _, _ = train_networks(one, X, y, SEEDS[:1])
    assert [engine for engine, _ in reasons] == ["joblib"]
    assert reason in reasons[0][1]
    expected, _, _ = train_clone(two, X, y, seed=SEEDS[0])
    assert all(torch.equal(a, b) for a, b in zip(found[0].module_.parameters(), expected.module_.parameters()))


# --- kept in a folder ---------------------------------------------------------------------------------------------


@pytest.fixture
def trained(monkeypatch):
    """Numbers of networks trained, by either engine."""
    counts = []
    for engine in (_fit_engines.LoopEngine, _fit_engines.AtOnceEngine):

        def counting(self, units, original=engine.__call__):
            counts.append(len(units))
            return original(self, units)

        monkeypatch.setattr(engine, "__call__", counting)
    return counts


def weights(nets):
    return [torch.cat([v.double().ravel() for v in net.module_.state_dict().values()]).numpy() for net in nets]


@pytest.mark.parametrize("name", ["AdamW, classes", "norm, frozen", "lazy", "clips"])
@pytest.mark.parametrize("recorder", [None, TrajectoryRecorder(3)])
def test_kept_networks_are_those_trained(name, recorder, tmp_path, trained):
    make = NETS[name] if name in NETS else IN_TURN[name][0]
    X, y = data(name)
    first, _, _ = train_networks(make(), X, y, SEEDS[:2], recorder=recorder, cache=tmp_path)
    again, _, _ = train_networks(make(), X, y, SEEDS, recorder=recorder, cache=tmp_path)
    whole, _, _ = train_networks(make(), X, y, SEEDS, recorder=recorder)
    assert sum(trained) == 2 + 1 + 3
    np.testing.assert_array_equal(weights(again)[:2], weights(first))
    # Sums over a batch may be rounded by how many networks are summed at once.
    np.testing.assert_allclose(weights(again), weights(whole), rtol=1e-7, atol=1e-9)
    for one, two in zip(again, whole):
        np.testing.assert_allclose(one.history[:, "train_loss"], two.history[:, "train_loss"], rtol=1e-6)
        if recorder is not None:
            assert_same_record(Trajectory.from_net(one), Trajectory.from_net(two))
        else:
            assert not any(isinstance(callback, TrajectoryRecorder) for _, callback in one.callbacks_)
        state, other = one.optimizer_.state_dict(), two.optimizer_.state_dict()
        for mine, theirs in zip(state["state"].values(), other["state"].values(), strict=True):
            assert mine.keys() == theirs.keys()
            for key, value in mine.items():
                torch.testing.assert_close(value, theirs[key], rtol=1e-5, atol=1e-7)
        assert pickle.loads(pickle.dumps(one)).predict(X[:2]).shape == one.predict(X[:2]).shape
    assert not [p for p in tmp_path.rglob("*") if p.suffix not in ("", ".json", ".safetensors")]


def test_anything_else_is_another_network(tmp_path, trained):
    X, y, _ = rows()
    train_networks(make_net(), X, y, SEEDS[:1], cache=tmp_path)
    others = [
        (make_net(lr=0.04), X, y, {}),
        (make_net(max_epochs=3), X, y, {}),
        (make_net(module__hidden=(7,)), X, y, {}),
        (make_net(iterator_valid__shuffle=True), X, y, {}),
        (make_net(callbacks=[LRScheduler(StepLR, step_size=2)]), X, y, {}),
        (make_net(), X[::-1].copy(), y[::-1].copy(), {}),
        (make_net(), X, y + 1, {}),
        (make_net(), X, y, {"recorder": TrajectoryRecorder(3)}),
    ]
    for k, (net, *given, options) in enumerate(others, start=2):
        train_networks(net, *given, SEEDS[:1], cache=tmp_path, **options)
        assert sum(trained) == k
    train_networks(make_net(), X, y, [5], cache=tmp_path)
    train_networks(make_net(), X, y, SEEDS[:1], cache=tmp_path)
    assert sum(trained) == len(others) + 2


@pytest.mark.parametrize("damage", ["tensors", "about", "record", "half"])
def test_damaged_ones_are_trained_again(damage, tmp_path, trained):
    X, y, _ = rows()
    options = {"recorder": TrajectoryRecorder(3), "cache": tmp_path}
    first, _, _ = train_networks(make_net(), X, y, SEEDS, **options)
    place = next(tmp_path.glob("*/*-b"))  # seed 11
    if damage == "tensors":
        file = place / "tensors.safetensors"
        content = bytearray(file.read_bytes())
        content[-3] ^= 1
        file.write_bytes(content)
    elif damage == "about":
        about = json.loads((place / "about.json").read_text())
        (place / "about.json").write_text(json.dumps(about)[:-20])
    elif damage == "record":
        next((place / "trajectory").glob("checkpoint-*")).unlink()
    else:
        (place / "about.json").unlink()
    again, _, _ = train_networks(make_net(), X, y, SEEDS, **options)
    assert sum(trained) == 4
    np.testing.assert_array_equal(weights(again), weights(first))
    train_networks(make_net(), X, y, SEEDS, **options)
    assert sum(trained) == 4
