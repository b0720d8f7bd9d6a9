from __future__ import annotations

import copy
import pickle
import random

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.utils import check_random_state
from skorch import NeuralNetRegressor
from skorch.callbacks import Callback, LRScheduler
from torch import nn

from sklearn_source.trajectory import Trajectory, TrajectoryRecorder


def weights_of(checkpoint):
    return list(checkpoint.parameters.values())


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_checkpoints_hold_the_weights_after_their_step(make_net, data, spy_sgd):
    net = make_net(TrajectoryRecorder(None), optimizer=spy_sgd, optimizer__momentum=0.9)
    net.initialize()
    initial = [value.detach().clone() for value in net.module_.parameters()]
    net.partial_fit(*data)
    trajectory = Trajectory.from_net(net)
    assert [checkpoint.step for checkpoint in trajectory.checkpoints] == list(range(13))
    assert_same(weights_of(trajectory.checkpoints[0]), initial)
    for checkpoint, weights in zip(trajectory.checkpoints[1:], net.optimizer_.weights):
        assert_same(weights_of(checkpoint), weights)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("step_every", ["batch", "epoch"])
def test_learning_rates_are_those_of_the_steps(make_net, data, spy_sgd, first, step_every):
    scheduler = LRScheduler(torch.optim.lr_scheduler.ExponentialLR, gamma=0.7, step_every=step_every)
    callbacks = [TrajectoryRecorder(), scheduler] if first else [scheduler, TrajectoryRecorder()]
    net = make_net(callbacks=callbacks, optimizer=spy_sgd).fit(*data)
    stage = Trajectory.from_net(net).stages[0]
    np.testing.assert_array_equal(stage.hyper["lr"], net.optimizer_.lrs)
    expected = 0.05 * 0.7 ** np.arange(12) if step_every == "batch" else 0.05 * 0.7 ** np.repeat(np.arange(3), 4)
    np.testing.assert_allclose(stage.hyper["lr"][:, 0], expected)


def test_learning_rate_changed_while_the_gradient_is_computed(make_net, data, spy_sgd):
    class Halve(Callback):
        def on_grad_computed(self, net, named_parameters, **kwargs):
            for group in net.optimizer_.param_groups:
                group["lr"] /= 2

    net = make_net(callbacks=[Halve()], optimizer=spy_sgd).fit(*data)
    np.testing.assert_array_equal(Trajectory.from_net(net).stages[0].hyper["lr"], net.optimizer_.lrs)
    assert net.optimizer_.lrs[0] == [0.025]


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_gradient_accumulation_counts_updates(make_net, data, spy_sgd):
    class Accumulating(NeuralNetRegressor):
        def train_step(self, batch, **fit_params):
            step = self.train_step_single(batch, **fit_params)
            if len(self.history[-1, "batches"]) % 2 == 0:
                self.optimizer_.step()
                self.optimizer_.zero_grad()
            return step

    scheduler = LRScheduler(torch.optim.lr_scheduler.ExponentialLR, gamma=0.7, step_every="batch")
    net = make_net(TrajectoryRecorder(None), [scheduler], cls=Accumulating, optimizer=spy_sgd).fit(*data)
    trajectory = Trajectory.from_net(net)
    assert trajectory.n_steps == len(net.optimizer_.lrs) == 6
    np.testing.assert_array_equal(trajectory.stages[0].hyper["lr"], net.optimizer_.lrs)
    for checkpoint, weights in zip(trajectory.checkpoints[1:], net.optimizer_.weights):
        assert_same(weights_of(checkpoint), weights)


def test_hyper_parameters_by_group(make_net, data):
    net = make_net(
        optimizer__momentum=0.9,
        optimizer__dampening=0.1,
        optimizer__param_groups=[("last*", {"lr": 0.01, "weight_decay": 0.5, "momentum": 0.5})],
    ).fit(*data)
    trajectory = Trajectory.from_net(net)
    stage = trajectory.stages[0]
    assert stage.optimizer == "SGD"
    assert [sorted(stage.groups[0]["params"]), stage.groups[1]["params"]] == [
        ["last.bias", "last.weight"],
        ["first.weight", "first.bias", "norm.weight", "norm.bias"],
    ]
    assert all(group["nesterov"] is False for group in stage.groups)
    for name, expected in {"lr": (0.01, 0.05), "momentum": (0.5, 0.9), "weight_decay": (0.5, 0)}.items():
        np.testing.assert_array_equal(stage.hyper[name], np.tile(expected, (12, 1)))
    np.testing.assert_array_equal(stage.hyper["dampening"], np.full((12, 2), 0.1))
    rates = trajectory.integrated_learning_rate(2, 7)
    reached = {m: sum(1 - m ** (12 - k + 1) for k in range(3, 8)) for m in (0.5, 0.9)}  # by the end, after 12 steps
    assert rates["last.bias"] == pytest.approx(reached[0.5] * 0.01 * 0.9 / 0.5)
    assert rates["norm.weight"] == pytest.approx(reached[0.9] * 0.05 * 0.9 / 0.1)


def test_nothing_of_the_training_changes(make_net, data):
    states = []
    for recorder in (False, TrajectoryRecorder(2, optimizer_state=True)):
        net = make_net(recorder, optimizer=torch.optim.Adam, iterator_train__shuffle=True)
        torch.manual_seed(3)
        random.seed(0)
        global_generator = check_random_state(None)  # NumPy's global one
        global_generator.seed(0)
        net.fit(*data)
        generators = (torch.get_rng_state(), global_generator.get_state()[1], random.getstate())
        states.append((net.module_.state_dict(), *generators))
    without, with_recorder = states
    assert_same(list(without[0].values()), list(with_recorder[0].values()))
    assert torch.equal(without[1], with_recorder[1])
    np.testing.assert_array_equal(without[2], with_recorder[2])
    assert without[3] == with_recorder[3]


def test_buffers_are_kept_and_separate(make_net, data):
    net = make_net().fit(*data)
    first, *_, last = Trajectory.from_net(net).checkpoints
    assert set(last.buffers) == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert first.buffers["norm.num_batches_tracked"] == 0
    assert last.buffers["norm.num_batches_tracked"] == 12
    assert torch.equal(last.buffers["norm.running_mean"], net.module_.norm.running_mean)
    before = last.parameters["first.weight"].clone()
    net.partial_fit(*data)
    assert torch.equal(last.parameters["first.weight"], before)
    assert last.parameters["first.weight"].device.type == "cpu"
    assert not last.parameters["first.weight"].requires_grad


def test_tied_parameters_once(make_net, data):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.last = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.last(self.second(self.first(x)))

    checkpoint = Trajectory.from_net(make_net(module=Tied).fit(*data)).checkpoints[-1]
    assert list(checkpoint.parameters) == ["first.weight", "first.bias", "second.bias", "last.weight", "last.bias"]


def test_lazy_module_gets_its_initial_weights(make_net, data, spy_sgd):
    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.LazyLinear(4), nn.Linear(4, 1)

        def forward(self, x):
            return self.last(torch.tanh(self.first(x)))

    drawn = {}

    class Watch(Callback):
        def on_grad_computed(self, net, named_parameters, **kwargs):
            drawn.setdefault("weight", net.module_.first.weight.detach().clone())

    net = make_net(TrajectoryRecorder(None), [Watch()], module=Lazy, optimizer=spy_sgd).fit(*data)
    trajectory = Trajectory.from_net(net)
    assert trajectory.checkpoints[0].step == 0
    assert torch.equal(trajectory.checkpoints[0].parameters["first.weight"], drawn["weight"])
    assert not torch.equal(trajectory.checkpoints[1].parameters["first.weight"], drawn["weight"])
    assert not net.module_._forward_hooks


def test_initial_weights_after_other_callbacks_set_them(make_net, data):
    class Zero(Callback):
        def on_train_begin(self, net, **kwargs):
            with torch.no_grad():
                net.module_.first.weight.zero_()

    for callbacks in ([Zero(), TrajectoryRecorder()], [TrajectoryRecorder(), Zero()]):
        trajectory = Trajectory.from_net(make_net(callbacks=callbacks).fit(*data))
        assert not trajectory.checkpoints[0].parameters["first.weight"].any()
        assert trajectory.checkpoints[1].parameters["first.weight"].any()


def test_module_replaced_at_train_begin(make_net, data):
    class Reshape(Callback):
        def on_train_begin(self, net, X=None, **kwargs):
            net.set_params(module__n_features=X.shape[1])

    net = make_net(callbacks=[TrajectoryRecorder(), Reshape()], module__n_features=7).fit(*data)
    trajectory = Trajectory.from_net(net)
    assert trajectory.n_steps == 12
    assert trajectory.checkpoints[0].parameters["first.weight"].shape == (4, 3)


@pytest.mark.parametrize(
    "optimizer, wanted, keys",
    [
        ("SGD", "auto", None),
        ("SGD", True, {"momentum_buffer"}),
        ("Adam", "auto", {"step", "exp_avg", "exp_avg_sq"}),
        ("Adam", False, None),
        ("RMSprop", "auto", {"step", "square_avg", "momentum_buffer"}),
        ("LBFGS", False, None),
    ],
)
def test_optimizer_state(make_net, data, optimizer, wanted, keys):
    options = {} if optimizer in ("Adam", "LBFGS") else {"optimizer__momentum": 0.9}
    recorder = TrajectoryRecorder(optimizer_state=wanted)
    net = make_net(recorder, optimizer=getattr(torch.optim, optimizer), **options).fit(*data)
    trajectory = Trajectory.from_net(net)
    assert trajectory.stages[0].optimizer == optimizer
    state = trajectory.checkpoints[-1].optimizer_state
    if keys is None:
        assert state is None
        return
    assert set(state["last.weight"]) == keys
    for key, value in net.optimizer_.state[net.module_.last.weight].items():
        assert torch.equal(torch.as_tensor(state["last.weight"][key]), torch.as_tensor(value))


def test_adam_options_are_in_the_groups(make_net, data):
    net = make_net(optimizer=torch.optim.Adam, optimizer__betas=(0.8, 0.95), optimizer__eps=1e-6).fit(*data)
    (group,) = Trajectory.from_net(net).stages[0].groups
    assert group["betas"] == (0.8, 0.95)
    assert group["eps"] == 1e-6


@pytest.mark.parametrize("copy_net", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_go_on_recording_on_their_own(make_net, data, copy_net):
    net = make_net().fit(*data)
    before = Trajectory.from_net(net)
    twin = copy_net(net)
    assert_same(weights_of(Trajectory.from_net(twin).checkpoints[2]), weights_of(before.checkpoints[2]))
    twin.partial_fit(*data)
    assert Trajectory.from_net(twin).n_steps == 24
    assert Trajectory.from_net(net).n_steps == 12
    net.partial_fit(*data)
    assert Trajectory.from_net(net).n_steps == 24


class PickleNet(Callback):
    def on_epoch_end(self, net, **kwargs):
        self.pickled_ = pickle.dumps(net)


@pytest.mark.parametrize("recorder_first", [True, False])
def test_pickled_in_the_middle_of_training(make_net, data, recorder_first):
    callbacks = [PickleNet(), TrajectoryRecorder(3)]
    if recorder_first:
        callbacks.reverse()
    net = make_net(callbacks=callbacks, batch_size=7).fit(*data)
    twin = pickle.loads(callbacks[int(recorder_first)].pickled_)
    if recorder_first:
        trajectory = Trajectory.from_net(twin)
        assert [checkpoint.step for checkpoint in trajectory.checkpoints][-1] == 9
        assert len(trajectory.checkpoints) == 4
    else:  # pickled before the recorder saw the end of the epoch
        with pytest.raises(ValueError, match="weights that its TrajectoryRecorder saw"):
            Trajectory.from_net(twin)
    twin.partial_fit(*data)
    trajectory = Trajectory.from_net(twin)
    assert [stage.end for stage in trajectory.stages] == [9, 18]
    assert len(trajectory.checkpoints) == 7
    assert Trajectory.from_net(net).n_steps == 9


def test_clone_forgets_the_record(make_net, data):
    net = make_net(TrajectoryRecorder(4, optimizer_state=True)).fit(*data)
    twin = clone(net)
    (recorder,) = twin.callbacks
    assert recorder.get_params() == {
        "n_checkpoints": 4,
        "dirname": None,
        "optimizer_state": True,
        "overwrite": False,
    }
    assert not hasattr(recorder, "stages_")
    twin.fit(*data)
    assert Trajectory.from_net(net).n_steps == Trajectory.from_net(twin).n_steps == 12
    assert clone(Trajectory.from_net(net)).n_steps == 12


def test_parameter_set_through_the_net(make_net, data):
    net = make_net().fit(*data)
    net.set_params(callbacks__TrajectoryRecorder__n_checkpoints=2)  # skorch initializes the callbacks again
    assert Trajectory.from_net(net).n_steps == 12
    net.fit(*data)
    assert len(Trajectory.from_net(net).checkpoints) == 3


def test_groups_added_on_the_way(make_net, data, spy_sgd):
    class Unfreeze(Callback):
        def on_epoch_begin(self, net, **kwargs):
            if len(net.history) == 2:
                net.optimizer_.add_param_group({"params": list(net.module_.first.parameters()), "lr": 0.01})

    class Frozen(NeuralNetRegressor):
        def initialize_optimizer(self):
            self.optimizer_ = self.optimizer(self.module_.last.parameters(), lr=self.lr)
            return self

    net = make_net(callbacks=[Unfreeze()], cls=Frozen, optimizer=spy_sgd).fit(*data)
    trajectory = Trajectory.from_net(net)
    stage = trajectory.stages[0]
    assert [group["params"] for group in stage.groups] == [
        ["last.weight", "last.bias"],
        ["first.weight", "first.bias"],
    ]
    np.testing.assert_array_equal(stage.hyper["lr"], [[0.05, 0.0]] * 4 + [[0.05, 0.01]] * 8)
    rates = trajectory.integrated_learning_rate(0, 12, per="plain")
    assert rates["last.bias"] == pytest.approx(12 * 0.05)
    assert rates["first.bias"] == pytest.approx(8 * 0.01)
    assert rates["norm.bias"] == 0.0


def test_optimizer_replaced_on_the_way(make_net, data, spy_sgd):
    class Replace(Callback):
        def __init__(self, kind):
            self.kind = kind

        def on_epoch_begin(self, net, **kwargs):
            if len(net.history) == 2:
                net.optimizer_ = self.kind(net.module_.parameters(), lr=0.01)

    net = make_net(callbacks=[Replace(torch.optim.SGD)]).fit(*data)
    trajectory = Trajectory.from_net(net)
    np.testing.assert_array_equal(trajectory.stages[0].hyper["lr"][:, 0], [0.05] * 4 + [0.01] * 8)
    with pytest.raises(ValueError, match="changed from SGD to Adam after step 4"):
        make_net(callbacks=[Replace(torch.optim.Adam)]).fit(*data)


def test_several_optimizers_are_refused(make_net, data):
    class Two(NeuralNetRegressor):
        def initialize_optimizer(self):
            super().initialize_optimizer()
            self.second_ = torch.optim.SGD(self.module_.first.parameters(), lr=0.1)
            return self

    with pytest.raises(ValueError, match="one torch optimizer"):
        make_net(cls=Two).fit(*data)

    class Renamed(NeuralNetRegressor):
        def initialize_optimizer(self):
            self.other_ = torch.optim.SGD(self.module_.parameters(), lr=0.1)
            return self

    with pytest.raises(ValueError, match=r"named optimizer_.*has other_"):
        make_net(cls=Renamed).fit(*data)


def test_parameters_outside_the_module_are_refused(make_net, data):
    class Loss(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, output, target):
            return self.scale * (output - target).square().mean()

    with pytest.raises(ValueError, match="parameters of module_ only"):
        make_net(criterion=Loss).fit(*data)


@pytest.mark.parametrize(
    "kwargs, match",
    [
        ({"n_checkpoints": 0}, "n_checkpoints"),
        ({"n_checkpoints": 2.5}, "n_checkpoints"),
        ({"optimizer_state": "yes"}, "optimizer_state"),
        ({"dirname": 3}, "dirname"),
    ],
)
def test_bad_parameters_are_named_when_training_starts(make_net, data, kwargs, match):
    with pytest.raises(ValueError, match=match):
        make_net(TrajectoryRecorder(**kwargs)).fit(*data)


def test_non_finite_weights_are_recorded(make_net, data):
    class Spoil(Callback):
        def on_batch_end(self, net, training=None, **kwargs):
            if training and len(net.history) == 2:
                with torch.no_grad():
                    net.module_.last.bias.fill_(float("nan"))

    net = make_net(TrajectoryRecorder(None), [Spoil()]).fit(*data)
    trajectory = Trajectory.from_net(net)
    assert trajectory.n_steps == 12
    spoiled = [point for point in trajectory.checkpoints if not point.parameters["last.bias"].isfinite().all()]
    assert spoiled[0].step == 6
    assert "step 6, stage 0" in repr(spoiled[0])


def test_a_projection_after_the_step_is_in_the_last_checkpoint(make_net, data):
    class Clip(Callback):
        def on_batch_end(self, net, training=None, **kwargs):
            with torch.no_grad():
                net.module_.last.weight.clamp_(-0.01, 0.01)

    for n_checkpoints in (3, None):
        net = make_net(TrajectoryRecorder(n_checkpoints), [Clip()]).fit(*data)
        last = Trajectory.from_net(net).checkpoints[-1]
        assert last.step == 12
        assert torch.equal(last.parameters["last.weight"], net.module_.last.weight)


def test_custom_loop_outside_of_fit_is_left_alone(make_net, data):
    net = make_net().initialize()
    net.fit_loop(*data)
    with pytest.raises(ValueError, match="saw no training step"):
        Trajectory.from_net(net)
    net.fit(*data)
    net.fit_loop(*data)
    with pytest.raises(ValueError, match="weights that its TrajectoryRecorder saw"):
        Trajectory.from_net(net)


def test_what_else_is_trained_is_refused_before_the_first_step(make_net, data):
    class Loss(nn.MSELoss):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, output, target):
            raise AssertionError("a step was begun")

    class Second(NeuralNetRegressor):
        def initialize_module(self):
            super().initialize_module()
            self.second_ = nn.LazyLinear(1)
            return self

        def infer(self, x, **fit_params):
            raise AssertionError("a step was begun")

    for options in ({"criterion": Loss}, {"cls": Second}):
        with pytest.raises(ValueError, match=r"parameters of module_ only.*criterion, of a second module"):
            make_net(**options).fit(*data)


@pytest.mark.parametrize("n_checkpoints", [1, 2, 9, None])
def test_a_parameter_set_after_training_changes_no_record(make_net, data, n_checkpoints):
    net = make_net(TrajectoryRecorder(4)).fit(*data)
    before = [point.step for point in Trajectory.from_net(net).checkpoints]
    net.set_params(callbacks__TrajectoryRecorder__n_checkpoints=n_checkpoints)
    assert [point.step for point in Trajectory.from_net(net).checkpoints] == before
    net.partial_fit(*data)
    stages = Trajectory.from_net(net)
    assert [point.step for point in stages.checkpoints if point.stage == 0] == before
    assert len(stages.checkpoints) - len(before) == (n_checkpoints or 12)
