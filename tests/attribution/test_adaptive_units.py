"""Adaptive optimizers: SOURCE against the exact derivative of the recorded update, its preconditioner frozen."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from skorch import NeuralNetRegressor
from torch import nn

from sklearn_source import InfluenceFunctions, SourceAttribution, TracIn, Trajectory
from tests.attribution.test_units import problem
from tests.reference._adaptive import frozen_effects

N_STEPS, N_CHECKPOINTS = 1000, 25
CASES = {
    "Adam": ("Adam", {}),
    "Adam, coupled decay": ("Adam", {"weight_decay": 0.1}),
    "Adam, short memory": ("Adam", {"betas": (0.9, 0.99)}),
    "AMSGrad": ("Adam", {"amsgrad": True, "weight_decay": 0.1}),
    "AdamW": ("AdamW", {"weight_decay": 0.3}),
    "NAdam": ("NAdam", {"weight_decay": 0.1}),
    "NAdam, decoupled decay": ("NAdam", {"weight_decay": 0.3, "decoupled_weight_decay": True}),
    "RAdam": ("RAdam", {"weight_decay": 0.1}),
    "RAdam, decoupled decay": ("RAdam", {"weight_decay": 0.3, "decoupled_weight_decay": True}),
    "Adamax": ("Adamax", {"weight_decay": 0.1}),
    "RMSprop": ("RMSprop", {}),
    "RMSprop, momentum": ("RMSprop", {"lr": 0.0001, "momentum": 0.9, "weight_decay": 0.1}),
    "RMSprop, centered": ("RMSprop", {"lr": 0.0002, "centered": True}),
    "Adagrad": ("Adagrad", {"lr": 0.01, "weight_decay": 0.1}),
    "Adagrad, falling rate": ("Adagrad", {"lr": 0.01, "lr_decay": 0.001}),
    "Adagrad, from above zero": ("Adagrad", {"lr": 0.01, "initial_accumulator_value": 1.0}),
}

# Its sum grows manyfold within the first segment, where no state is recorded: what lies between is not known.
TOLERANCE = {"Adagrad, from above zero": 0.025}


def recorded_run(kind, options, schedule=None):
    """The exact effects, and the net and trajectory of the same training."""
    X, y, X_query = problem()
    torch.manual_seed(0)
    module = nn.Linear(5, 1, dtype=torch.float64)
    tensors = (torch.from_numpy(values) for values in (X, y, X_query))
    effects, states, replayed = frozen_effects(module, kind, options, N_STEPS, *tensors, schedule=schedule)
    assert replayed < 1e-9  # the reference steps as torch does
    steps = [N_STEPS * i // N_CHECKPOINTS for i in range(N_CHECKPOINTS + 1)]
    rates = [options["lr"] * (schedule(k) if schedule else 1.0) for k in range(1, N_STEPS + 1)]
    trajectory = Trajectory.from_checkpoints(
        [states[step][0] for step in steps], steps, rates, module=module, optimizer=kind,
        momentum=options.get("momentum", 0.0), weight_decay=options.get("weight_decay", 0.0), n_rows=len(X),
        optimizer_states=[states[step][1] if step else None for step in steps],
    )  # fmt: skip
    net = NeuralNetRegressor(copy.deepcopy(module), train_split=None, batch_size=-1, verbose=0).initialize()
    net.module_.load_state_dict(states[N_STEPS][0])
    return net, trajectory, X, y, X_query, effects.numpy()


def distance(found, truth):
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


@pytest.mark.parametrize("name", CASES)
def test_source_is_the_derivative_of_the_recorded_update_to_two_percent(name, record_property):
    kind, options = CASES[name]
    net, trajectory, X, y, X_query, truth = recorded_run(kind, {"lr": 0.0008, **options})
    exact = SourceAttribution(n_segments=25, curvature="exact", trajectory=trajectory).fit(net, X, y)
    found = exact.transform(X_query)
    record_property("norm", distance(found, truth))
    assert distance(found, truth) < TOLERANCE.get(name, 0.02)
    assert abs(float((found * truth).sum() / (truth * truth).sum()) - 1) < 0.02
    # One linear output: EK-FAC in the metric is the matrix itself, decay and all.
    ekfac = SourceAttribution(n_segments=25, trajectory=trajectory).fit(net, X, y).transform(X_query)
    assert distance(ekfac, found) < 1e-4
    assert {s.optimizer for s in exact.segments_} == {kind}
    if name != kind:  # shown once an optimizer
        return
    # What does not look at this training is far away, and so is the same formula for SGD.
    plain = Trajectory(trajectory.checkpoints, [dataclasses.replace(trajectory.stages[0], optimizer="SGD")])
    others = [
        SourceAttribution(n_segments=25, trajectory=plain),
        InfluenceFunctions(curvature="exact", damping=0.0),
        TracIn(trajectory=trajectory),
    ]
    for other in others:
        assert distance(other.fit(net, X, y).transform(X_query), truth) > 0.1


def test_a_falling_rate():
    net, trajectory, X, y, X_query, truth = recorded_run("Adam", {"lr": 0.0016}, lambda k: 1.0 - k / (N_STEPS + 1))
    found = SourceAttribution(n_segments=25, trajectory=trajectory).fit(net, X, y).transform(X_query)
    assert distance(found, truth) < 0.02


def test_tracin_is_the_first_order_of_it():
    """Steps so small that nothing is lost on the way: the sum over checkpoints alone is the derivative."""
    net, trajectory, X, y, X_query, truth = recorded_run("AdamW", {"lr": 1e-6})
    found = TracIn(trajectory=trajectory).fit(net, X, y).transform(X_query)
    assert distance(found, truth) < 0.01
