from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import trapezoid

from sklearn_source.trajectory import Stage, Trajectory, split_segments
from sklearn_source.trajectory._checkpoint import Checkpoint


def make_trajectory(stage_steps, rng=None, initial=True, own_initial=False):
    """Make a trajectory whose stages have checkpoints after the given numbers of their own steps."""
    checkpoints, stages, start = [], [], 0
    rng = np.random.RandomState(0) if rng is None else rng
    for index, steps in enumerate(stage_steps):
        if (index == 0 and initial) or (index and own_initial):
            checkpoints.append(Checkpoint(start, index, {}, {}))
        checkpoints += [Checkpoint(start + step, index, {}, {}) for step in steps]
        end = start + steps[-1]
        hyper = {
            "lr": rng.uniform(0.001, 1, (steps[-1], 2)),
            "momentum": rng.uniform(0, 0.95, (steps[-1], 2)),
            "dampening": rng.uniform(0, 0.5, (steps[-1], 2)),
            "weight_decay": rng.uniform(0, 0.1, (steps[-1], 2)),
        }
        groups = ({"params": ["a", "b"]}, {"params": ["c"]})
        stages.append(Stage(index, start, end, "SGD", groups, hyper, 1, np.arange(1)))
        start = end
    return Trajectory(checkpoints, stages)


checkpoint_steps = st.lists(st.integers(1, 60), min_size=1, max_size=12, unique=True).map(sorted)


@settings(max_examples=200, deadline=None)
@given(
    stage_steps=st.lists(checkpoint_steps, min_size=1, max_size=3),
    n_segments=st.integers(1, 5),
    quadrature=st.sampled_from(["trapezoid", "right"]),
    own_initial=st.booleans(),
)
def test_segments_tile_and_weights_are_the_rule(stage_steps, n_segments, quadrature, own_initial):
    trajectory = make_trajectory(stage_steps, own_initial=own_initial)
    fewest = min(len(steps) for steps in stage_steps)
    if fewest < n_segments:
        with pytest.raises(ValueError, match=rf"at least {n_segments} checkpoints"):
            split_segments(trajectory, n_segments, quadrature)
        return
    segments = split_segments(trajectory, n_segments, quadrature)
    assert len(segments) == n_segments * len(stage_steps)
    assert segments[0].start == 0
    assert segments[-1].end == trajectory.n_steps
    assert all(one.end == other.start for one, other in zip(segments, segments[1:]))
    for segment in segments:
        stage = trajectory.stages[segment.stage]
        assert stage.start <= segment.start < segment.end <= stage.end
        steps = np.array([checkpoint.step for checkpoint in segment.checkpoints])
        assert (np.diff(steps) > 0).all()
        assert steps[-1] == segment.end
        assert segment.weights.sum() == pytest.approx(1)
        assert all(checkpoint.stage in (segment.stage, segment.stage - 1) for checkpoint in segment.checkpoints)
        if own_initial:
            assert all(checkpoint.stage == segment.stage for checkpoint in segment.checkpoints)
        if quadrature == "right":
            assert (steps > segment.start).all()
            np.testing.assert_allclose(segment.weights, 1 / len(steps))
            continue
        assert steps[0] == segment.start
        for position, weight in enumerate(segment.weights):
            hat = np.zeros(len(steps))
            hat[position] = 1.0
            assert weight == pytest.approx(trapezoid(hat, steps) / (segment.end - segment.start))
    for per in ("momentum", "plain"):
        whole = trajectory.integrated_learning_rate(0, trajectory.n_steps, per=per)
        parts = [trajectory.integrated_learning_rate(segment.start, segment.end, per=per) for segment in segments]
        for name, value in whole.items():
            assert sum(part[name] for part in parts) == pytest.approx(value, rel=1e-10)


@settings(max_examples=50, deadline=None)
@given(stage_steps=st.lists(checkpoint_steps, min_size=1, max_size=3), draw=st.data())
def test_sums_are_those_of_a_loop(stage_steps, draw):
    trajectory = make_trajectory(stage_steps)
    start = draw.draw(st.integers(0, trajectory.n_steps))
    end = draw.draw(st.integers(start, trajectory.n_steps))
    expected = {"plain": np.zeros(2), "momentum": np.zeros(2), "decay": np.zeros(2)}
    for stage in trajectory.stages:
        lr, momentum, dampening, decay = stage.hyper.values()
        for row in range(stage.n_steps):
            if not start < stage.start + row + 1 <= end:
                continue
            velocity = np.ones(2) if row == 0 else 1 - dampening[row]  # that this step's gradient leaves
            moved = lr[row] * velocity
            for later in range(row + 1, stage.n_steps):
                velocity = momentum[later] * velocity
                moved = moved + lr[later] * velocity
            expected["plain"] += lr[row]
            expected["momentum"] += moved
            expected["decay"] += moved * decay[row]
    for per in ("plain", "momentum"):
        rates = trajectory.integrated_learning_rate(start, end, per=per)
        np.testing.assert_allclose([rates["a"], rates["b"], rates["c"]], expected[per][[0, 0, 1]], atol=1e-10)
    decay = trajectory.mean_weight_decay(start, end)
    if start < end:
        mean = expected["decay"] / expected["momentum"]
        np.testing.assert_allclose([decay["a"], decay["c"]], mean, rtol=1e-6)
    else:
        assert set(decay.values()) == {0.0}


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("cycled", [False, True])
def test_rates_of_a_stage_are_what_its_pulls_move_until_the_end_of_training(nesterov, cycled):
    """A weight of torch's SGD that is pulled in one stage alone: its velocity moves it in those that follow too."""
    rng = np.random.default_rng(0)
    lengths, n_groups = [7, 4, 12], 2
    table = {
        "lr": rng.uniform(0.01, 1, (sum(lengths), n_groups)),
        "momentum": rng.uniform(0.5, 0.95, (sum(lengths), n_groups)) if cycled else np.full((sum(lengths), 2), 0.9),
        "dampening": np.zeros((sum(lengths), n_groups)),
        "weight_decay": np.zeros((sum(lengths), n_groups)),
    }
    if cycled:
        table["momentum"][[0, 9, 15]] = 0.0  # CyclicLR and others switch it
    batches = rng.integers(1, 4, sum(lengths))
    groups = tuple({"params": [name], "nesterov": nesterov} for name in "ab")
    ends = np.cumsum(lengths)
    stages = [
        Stage(
            index, end - n, end, "SGD", groups, {k: v[end - n : end] for k, v in table.items()}, 1, np.arange(1),
            batches=batches[end - n : end], continues=index > 0,
        )
        for index, (n, end) in enumerate(zip(lengths, ends.tolist()))
    ]  # fmt: skip
    trajectory = Trajectory([Checkpoint(int(ends[-1]), 2, {}, {})], stages)
    for stage in trajectory.stages:
        weights = [torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in groups]
        optimizer = torch.optim.SGD([{"params": [w]} for w in weights], lr=0.0, momentum=0.5, nesterov=nesterov)
        for step in range(sum(lengths)):
            for number, group in enumerate(optimizer.param_groups):
                group.update(lr=table["lr"][step, number], momentum=table["momentum"][step, number])
                pulled = stage.start <= step < stage.end
                weights[number].grad = torch.full_like(weights[number], -float(batches[step]) if pulled else 0.0)
            optimizer.step()
        rates = trajectory.integrated_learning_rate(stage.start, stage.end)
        np.testing.assert_allclose([rates["a"], rates["b"]], [w.item() for w in weights], rtol=1e-10)


def test_boundaries_are_the_nearest_checkpoints():
    trajectory = make_trajectory([[3, 4, 18, 22, 30]])
    assert [(part.start, part.end) for part in split_segments(trajectory, 3)] == [(0, 4), (4, 18), (18, 30)]
    # 10 and 20 are both nearest to the same checkpoint here: each segment still gets one of its own.
    trajectory = make_trajectory([[1, 2, 14, 30]])
    assert [(part.start, part.end) for part in split_segments(trajectory, 3)] == [(0, 2), (2, 14), (14, 30)]
    trajectory = make_trajectory([[28, 29, 30]])
    assert [(part.start, part.end) for part in split_segments(trajectory, 3)] == [(0, 28), (28, 29), (29, 30)]
    trajectory = make_trajectory([[1, 2, 30]])
    assert [(part.start, part.end) for part in split_segments(trajectory, 3)] == [(0, 1), (1, 2), (2, 30)]


def test_auto_is_three_segments_or_one_for_each_checkpoint():
    def same(n_segments, *stage_steps):
        trajectory = make_trajectory(stage_steps, own_initial=True)
        found = split_segments(trajectory, "auto")
        expected = split_segments(trajectory, n_segments)
        return [(s.stage, s.start, s.end) for s in found] == [(s.stage, s.start, s.end) for s in expected]

    assert same(3, [3, 4, 18, 22, 30])
    assert same(3, [1, 2, 30], [4, 6, 9, 11])
    assert same(2, [3, 30])
    assert same(1, [30])
    short = split_segments(make_trajectory([[5], [2, 4, 6, 8]], own_initial=True), "auto")
    assert [(s.stage, s.start, s.end) for s in short] == [(0, 0, 5), (1, 5, 7), (1, 7, 11), (1, 11, 13)]


def test_without_initial_weights():
    trajectory = make_trajectory([[4, 8, 12]], initial=False)
    with pytest.raises(ValueError, match="initial weights of stage 0"):
        split_segments(trajectory, 3)
    segments = split_segments(trajectory, 3, "right")
    assert [(part.start, part.end, len(part.checkpoints)) for part in segments] == [(0, 4, 1), (4, 8, 1), (8, 12, 1)]


@pytest.mark.parametrize("n_segments", [0, -1, 1.5, "3", True, None])
def test_bad_number_of_segments(n_segments):
    with pytest.raises(ValueError, match="expected n_segments to be a whole number"):
        split_segments(make_trajectory([[4, 8]]), n_segments)


def test_bad_arguments():
    trajectory = make_trajectory([[4, 8]])
    with pytest.raises(ValueError, match="expected quadrature to be"):
        split_segments(trajectory, 1, "simpson")
    with pytest.raises(ValueError, match="expected per to be"):
        trajectory.integrated_learning_rate(0, 8, per="step")
    for start, end in [(-1, 3), (3, 2), (0, 9)]:
        with pytest.raises(ValueError, match="0 <= start <= end <= 8"):
            trajectory.integrated_learning_rate(start, end)


def test_missing_learning_rate_is_an_error_where_it_matters():
    stage = make_trajectory([[4, 8]]).stages[0]
    hyper = {name: values.copy() for name, values in stage.hyper.items()}
    hyper["lr"][:] = np.nan
    trajectory = Trajectory([Checkpoint(8, 0, {}, {})], [Stage(0, 0, 8, "Odd", stage.groups, hyper, 1, np.arange(1))])
    with pytest.raises(ValueError, match="Odd used lr"):
        trajectory.integrated_learning_rate(0, 8)


def test_stages_must_follow_each_other():
    trajectory = make_trajectory([[4], [5]])
    with pytest.raises(ValueError, match="follow each other"):
        Trajectory(trajectory.checkpoints, trajectory.stages[1:])
    with pytest.raises(ValueError, match="at least one stage"):
        Trajectory([], [])


def test_stage_checkpoints_by_index_or_stage():
    trajectory = make_trajectory([[2, 4], [5]])
    for stage in (1, -1, trajectory.stages[1]):
        assert [point.step for point in trajectory.stage_checkpoints(stage)] == [4, 9]
    with pytest.raises(IndexError):
        trajectory.stage_checkpoints(2)
