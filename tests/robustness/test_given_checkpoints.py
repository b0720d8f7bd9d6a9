"""What a user says of a training that no recorder watched is held against what can be."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from sklearn_source import Trajectory
from sklearn_source.modules import MLP

MODULE = MLP(n_features=3, hidden=(4,))
STATE = {name: value.clone() for name, value in MODULE.state_dict().items()}
GOOD = {"learning_rates": 0.1, "module": MODULE, "n_rows": 9}


def make(states=None, steps=(0, 5), **options):
    states = [copy.deepcopy(STATE), copy.deepcopy(STATE)] if states is None else states
    return Trajectory.from_checkpoints(states, steps, **{**GOOD, **options})


def test_the_good_ones():
    assert make(momentum=0.9, weight_decay=0.1, learning_rates=[0.1, 0.0, 0.1, 0.2, 0.3]).n_steps == 5


BAD = {
    "negative rate": {"learning_rates": -0.1},
    "one negative rate": {"learning_rates": [0.1, 0.1, -1e-9, 0.1, 0.1]},
    "momentum 2": {"momentum": 2.0},
    "momentum 1": {"momentum": 1.0},
    "negative momentum": {"momentum": -0.1},
    "negative decay": {"weight_decay": -1e-4},
    "a billion steps": {"steps": (0, 10**9)},
    "text as rate": {"learning_rates": "fast"},
    "texts as rates": {"learning_rates": ["a"] * 5},
    "no rate": {"learning_rates": None},
    "infinite rate": {"learning_rates": np.inf},
    "complex rate": {"learning_rates": 1j},
    "steps that are a number": {"steps": 5},
    "fractions of steps": {"steps": (0, 2.5)},
    "ragged rows": {"rows": [[1], [1, 2]]},
    "rows beyond": {"rows": [9]},
    "numbers in a state dict": {"states": [dict.fromkeys(STATE, 1.0)] * 2},
    "arrays in a state dict": {"states": [{n: v.numpy() for n, v in STATE.items()}] * 2},
    "a list as state": {"optimizer_states": [[1], [2]]},
    "numbers as states": {"optimizer_states": [dict.fromkeys(STATE, 1.0)] * 2},
    "a missing parameter": {"states": [{}, {}]},
}


@pytest.mark.parametrize("kind", list(BAD))
def test_the_bad_ones(kind):
    with pytest.raises(ValueError, match="xpected|does not fit"):
        make(**BAD[kind])


def test_states_by_name():
    states = [None, {name: {"exp_avg_sq": torch.ones_like(value)} for name, value in STATE.items()}]
    assert make(optimizer_states=states).checkpoints[1].optimizer_state is not None
