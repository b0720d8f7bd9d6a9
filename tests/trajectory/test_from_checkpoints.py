from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sklearn_source.trajectory import Trajectory, TrajectoryRecorder, split_segments


@pytest.fixture
def trained(make_net, data):
    """A recorded training, and its state dicts as a user would have saved them."""
    kwargs = {"optimizer__momentum": 0.9, "optimizer__weight_decay": 0.1, "optimizer__nesterov": True}
    net = make_net(TrajectoryRecorder(4, optimizer_state=True), **kwargs).fit(*data)
    trajectory = Trajectory.from_net(net)
    return net, trajectory, [{**point.parameters, **point.buffers} for point in trajectory.checkpoints]


def describe(trained, state_dicts=None, **kwargs):
    net, trajectory, saved = trained
    steps = [point.step for point in trajectory.checkpoints]
    arguments = {"steps": steps, "learning_rates": 0.05, "module": net.module_, "n_rows": 20} | kwargs
    return Trajectory.from_checkpoints(saved if state_dicts is None else state_dicts, **arguments)


def test_agrees_with_the_recorder(trained, data):
    net, recorded, _ = trained
    states = [point.optimizer_state for point in recorded.checkpoints]
    made = describe(
        trained,
        learning_rates=np.full(12, 0.05),
        momentum=0.9,
        nesterov=True,
        weight_decay=0.1,
        X=data[0],
        y=data[1],
        optimizer_states=states,
    )
    assert repr(made) == repr(recorded)
    (one,), (other,) = made.stages, recorded.stages
    assert one.optimizer == "SGD"
    assert one.groups[0]["params"] == other.groups[0]["params"]
    assert one.groups[0]["nesterov"] is True
    for name, values in one.hyper.items():
        np.testing.assert_array_equal(values, other.hyper[name])
    np.testing.assert_array_equal(one.rows, other.rows)
    np.testing.assert_array_equal(one.row_hashes, other.row_hashes)
    for point, expected in zip(made.checkpoints, recorded.checkpoints):
        assert (point.step, point.digest) == (expected.step, expected.digest)
        assert point.buffers.keys() == expected.buffers.keys()
        for name, entries in (expected.optimizer_state or {}).items():
            assert torch.equal(point.optimizer_state[name]["momentum_buffer"], entries["momentum_buffer"])
    assert made.integrated_learning_rate(3, 12) == recorded.integrated_learning_rate(3, 12)


def test_state_dicts_are_copied(trained):
    saved = [copy.deepcopy(state) for state in trained[2]]
    made = describe(trained, saved)
    before = made.checkpoints[1].parameters["last.weight"].clone()
    saved[1]["last.weight"].zero_()
    assert torch.equal(made.checkpoints[1].parameters["last.weight"], before)


def test_from_safetensors_files(trained, tmp_path):
    paths = []
    for position, state in enumerate(trained[2]):
        paths.append(tmp_path / f"{position}.safetensors")
        save_file(state, str(paths[-1]))
    made = describe(trained, [str(paths[0]), *paths[1:]])
    assert [point.digest for point in made.checkpoints] == [point.digest for point in trained[1].checkpoints]
    paths[2].write_bytes(paths[2].read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"2\.safetensors.*truncated"):
        describe(trained, paths)
    with pytest.raises(ValueError, match=r"x\.pt: expected a safetensors file"):
        describe(trained, [tmp_path / "x.pt"] * 5)


def test_groups_and_rates_of_their_own(trained):
    names = list(trained[1].parameter_names)
    rates = np.column_stack([np.linspace(1, 0.1, 12), np.full(12, 0.5)])
    made = describe(trained, learning_rates=rates, groups=[names[:1], names[3:]], optimizer=torch.optim.AdamW)
    assert made.stages[0].optimizer == "AdamW"
    totals = made.integrated_learning_rate(0, 12)
    assert totals[names[0]] == pytest.approx(rates[:, 0].sum())
    assert totals[names[1]] == 0.0
    assert totals[names[5]] == pytest.approx(6)
    for groups in ([["nothing"]], [names[:2], names[1:]], []):
        with pytest.raises(ValueError, match="groups of parameter names"):
            describe(trained, groups=groups)


@pytest.mark.parametrize(
    "rates",
    [np.full(11, 0.1), np.full(13, 0.1), np.full((12, 2), 0.1), np.full((1, 12), 0.1), np.full((12, 1, 1), 0.1)],
)
def test_a_gap_in_the_learning_rates(trained, rates):
    with pytest.raises(ValueError, match=r"learning|lr.*A gap cannot be filled in"):
        describe(trained, learning_rates=rates)


def test_non_finite_learning_rate(trained):
    with pytest.raises(ValueError, match="finite values of lr"):
        describe(trained, learning_rates=np.append(np.full(11, 0.1), np.nan))


@pytest.mark.parametrize("steps", [[0, 2, 2, 6, 12], [0, 4, 2, 6, 12], [-1, 2, 3, 6, 12], [0.0, 1, 2, 3, 4], []])
def test_bad_steps(trained, steps):
    with pytest.raises(ValueError, match="number of steps taken before each state dict"):
        describe(trained, steps=steps)


def test_as_many_of_each(trained):
    with pytest.raises(ValueError, match="one step number per state dict"):
        describe(trained, steps=[0, 12])
    with pytest.raises(ValueError, match="one optimizer state"):
        describe(trained, optimizer_states=[None])


def test_without_initial_weights(trained):
    made = describe(trained, trained[2][1:], steps=[point.step for point in trained[1].checkpoints[1:]])
    with pytest.raises(ValueError, match=r"initial weights of stage 0 \(a checkpoint at step 0\)"):
        split_segments(made, 2)
    assert len(split_segments(made, 2, "right")) == 2


def test_only_the_initial_weights(trained):
    with pytest.raises(ValueError, match="the last at least 1"):
        describe(trained, trained[2][:1], steps=[0])


@pytest.mark.parametrize(
    "change, match",
    [
        (lambda state: state.pop("last.bias"), r"missing \['last.bias'\]"),
        (lambda state: state.pop("norm.running_var"), r"missing \['norm.running_var'\]"),
        (lambda state: state.update(other=torch.ones(1)), r"unknown \['other'\]"),
        (lambda state: state.update({"last.bias": torch.ones(2)}), r"step 3.*'last.bias' of shape \(1,\), got \(2,\)"),
    ],
)
def test_state_dict_of_another_module(trained, change, match):
    saved = [dict(state) for state in trained[2]]
    change(saved[1])
    steps = [0, 3, 6, 9, 12]
    with pytest.raises(ValueError, match=match):
        describe(trained, saved, steps=steps)


def test_state_dicts_saved_without_a_copy(trained):
    live = trained[0].module_.state_dict()
    with pytest.raises(ValueError, match=r"same memory.*deepcopy"):
        describe(trained, [*trained[2][:3], live, dict(live)])


@pytest.mark.parametrize("kwargs", [{"n_rows": 0}, {"n_rows": 2.0}, {"rows": [20]}, {"rows": [0.5]}, {"rows": []}])
def test_bad_rows(trained, kwargs):
    with pytest.raises(ValueError, match="rows"):
        describe(trained, **kwargs)


def test_rows_given_are_fingerprinted(trained, data):
    made = describe(trained, rows=[3, 1], X=data[0])
    np.testing.assert_array_equal(made.stages[0].rows, [3, 1])
    with pytest.raises(ValueError, match="n_rows=20 rows, got 19"):
        describe(trained, X=data[0][1:])


def test_tied_parameters_and_buffers_left_out():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
            self.second.weight = self.first.weight
            self.register_buffer("scale", torch.full((2,), 3.0), persistent=False)

    module = Tied()
    saved = [copy.deepcopy(module.state_dict()) for _ in range(2)]
    made = Trajectory.from_checkpoints(saved, [0, 5], 0.1, module=module, n_rows=3)
    assert list(made.checkpoints[0].parameters) == ["first.weight", "first.bias", "second.bias"]
    assert made.checkpoints[1].buffers["scale"].tolist() == [3.0, 3.0]


def test_optimizer_state_dicts_are_named(trained):
    net = trained[0]
    module = copy.deepcopy(net.module_)
    groups = [["last.weight", "last.bias"], ["first.weight", "first.bias", "norm.weight", "norm.bias"]]
    parameters = dict(module.named_parameters())
    optimizer = torch.optim.Adam(
        [{"params": [parameters[name] for name in group]} for group in groups], lr=0.1, betas=(0.7, 0.8)
    )
    module(torch.randn(8, 3)).sum().backward()
    optimizer.step()
    states = [None] * 4 + [optimizer.state_dict()]
    made = describe(trained, optimizer="Adam", groups=groups, optimizer_states=states)
    assert made.checkpoints[0].optimizer_state is None
    state = made.checkpoints[-1].optimizer_state
    for name, value in parameters.items():
        assert torch.equal(state[name]["exp_avg_sq"], optimizer.state[value]["exp_avg_sq"])
    assert made.stages[0].groups[0]["betas"] == (0.7, 0.8)
    # In another order of groups the shapes give it away.
    with pytest.raises(ValueError, match="Give groups= in the order"):
        describe(trained, optimizer="Adam", optimizer_states=states)
    with pytest.raises(ValueError, match="hold 2 parameters, got 6"):
        describe(trained, optimizer="Adam", groups=groups[:1], optimizer_states=states)
    with pytest.raises(ValueError, match=r"module has not: \['other'\]"):
        describe(trained, optimizer_states=[None] * 4 + [{"other": {}}])
    made = describe(trained, optimizer="Adam", optimizer_options={"betas": (0.5, 0.6), "eps": 1e-3})
    assert made.stages[0].groups[0]["eps"] == 1e-3
