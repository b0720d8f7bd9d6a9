"""A replayed step does what the step itself does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skorch import NeuralNetRegressor
from torch import nn

from sklearn_source.modules import MLP
from sklearn_source.retraining import _replay
from sklearn_source.retraining._engines import VectorizedEngine
from tests.retraining._problems import assert_same_states, both, make_net, rows, task_of

# Two tensors of one shape to one of that shape: what shares memory, what writes, what only looks.
OPERATIONS = {
    "sum": lambda a, b: a + b,
    "swapped": lambda a, b: b - a,
    "product": lambda a, b: a * b,
    "relu": lambda a, b: torch.relu(a),
    "tanh": lambda a, b: torch.tanh(b),
    "once": lambda a, b: a * 1,
    "turned": lambda a, b: a.mT,
    "turned twice": lambda a, b: a.mT.mT,
    "matrices": lambda a, b: a @ b,
    "view": lambda a, b: a.view(a.shape),
    "broadcast": lambda a, b: a + b[:1],
    "part": lambda a, b: torch.cat([a[:1], b[1:]]),
    "detached": lambda a, b: a.detach(),
    "copied": lambda a, b: a.clone(),
}


@settings(deadline=None, max_examples=25)
@given(
    program=st.lists(st.tuples(st.sampled_from(sorted(OPERATIONS)), st.integers(0, 9), st.integers(0, 9)), min_size=1),
    kept=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    differentiated=st.booleans(),
)
def test_any_program(program, kept, differentiated):
    def run(*args):
        results = [value * 1.5 for value in _results(args, program, kept)]
        if not differentiated:
            return results
        with torch.enable_grad():
            return torch.autograd.grad(sum(r.tanh().sum() for r in results), args, allow_unused=True)

    def tensors(seed):
        generator = torch.Generator().manual_seed(seed)
        made = [torch.randn(3, 3, generator=generator, dtype=torch.float64) for _ in range(2)]
        return [tensor.requires_grad_(differentiated) for tensor in made]

    if differentiated and not any(r.requires_grad for r in _results(tensors(0), program, kept)):
        return
    name = repr((program, kept, differentiated))
    for seed in range(3):  # recorded at the first, replayed with other numbers
        args = tensors(seed)
        before = [a.detach().clone() for a in args]
        found, expected = _replay.replay(name, run, args), run(*args)
        assert len(found) == len(expected)
        for mine, theirs in zip(found, expected):
            assert (mine is None) == (theirs is None)
            if mine is not None:
                assert torch.allclose(mine, theirs, rtol=1e-12, atol=1e-12, equal_nan=True)
                assert not mine.requires_grad
        assert all(torch.equal(a.detach(), b) for a, b in zip(args, before))


def _results(args, program, kept):
    values = list(args)
    for name, left, right in program:
        values.append(OPERATIONS[name](values[left % len(values)], values[-1 - right % len(values)]))
    return [values[k % len(values)] for k in kept]


def test_memory_is_reused_and_nothing_idle_is_left():
    def step(weights, x):
        hidden = torch.relu(x @ weights.mT.mT.view(4, 4) + 1)
        return [torch.tanh(hidden.view(4, 4))]

    graph = _replay._record(step, [torch.randn(4, 4), torch.randn(4, 4)]).__self__.graph
    calls = [node for node in graph.nodes if node.op == "call_function"]
    assert [str(node.target).split(".")[1] for node in calls] == ["mm", "add", "relu", "tanh"]
    assert all("out" in node.kwargs for node in calls[1:])


def test_arguments_that_a_step_changes_are_changed():
    def step(total, x):
        total.add_(x)
        return [total * 2]

    total = torch.zeros(3)
    for _ in range(3):
        (doubled,) = _replay.replay("running total", step, [total, torch.ones(3)])
    assert total.tolist() == [3, 3, 3]
    assert doubled.tolist() == [6, 6, 6]


def test_few_recordings_are_kept():
    for number in range(2 * _replay._MAX_RECORDINGS):
        _replay.replay(f"doubling {number}", lambda x: [2 * x], [torch.ones(1)])
    assert len(_replay._RECORDED) <= _replay._MAX_RECORDINGS


def test_threads_record_one_after_the_other():
    def work(number):
        for size in range(3, 9):
            x = torch.randn(size, 4)
            (found,) = _replay.replay(f"module {number}", lambda x: [modules[number](x)], [x])
            torch.testing.assert_close(found, modules[number](x))
        return number

    modules = [nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(4)]
    before = nn.Module.__call__, nn.Module.__getattr__
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [0, 1, 2, 3]
    assert (nn.Module.__call__, nn.Module.__getattr__) == before


class Annealed(NeuralNetRegressor):
    """A penalty that grows with the epochs, as the history counts them."""

    def get_loss(self, y_pred, y_true, X=None, training=False):
        loss = super().get_loss(y_pred, y_true, X=X, training=training)
        return loss + 0.01 * len(self.history) * sum(p.square().sum() for p in self.module_.parameters())


class Counting(nn.Module):
    """Its output shrinks with every batch that it has seen."""

    def __init__(self):
        super().__init__()
        self.linear, self.seen = nn.Linear(4, 1), 0

    def forward(self, X):
        if self.training:
            self.seen += 1
        return self.linear(X) / (1 + 0.01 * self.seen)


@pytest.mark.parametrize("kind, module", [(Annealed, MLP), (NeuralNetRegressor, Counting)])
def test_steps_that_change_with_time_are_not_replayed(kind, module):
    task, units = task_of(make_net(kind, module), *rows())
    one, two = both(task, units)
    assert_same_states(one, two)


def test_steps_are_recorded_once_for_all_networks(monkeypatch):
    recorded = []
    record = _replay._record
    monkeypatch.setattr(_replay, "_record", lambda *args: recorded.append(1) or record(*args))
    _replay._RECORDED.clear()
    task, units = task_of(make_net(), *rows(), n_subsets=8)
    engine = VectorizedEngine(task, chunk_size=4)
    for start in range(0, len(units), 4):
        engine.states(units[start : start + 4], task.plan)
    assert len(recorded) == 2  # batches of 8 rows, and the last of an epoch
