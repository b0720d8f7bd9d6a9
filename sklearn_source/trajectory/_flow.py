"""The gradient flow that the steps of a segment amount to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ._checkpoint import Checkpoint
from ._preconditioner import FAMILIES, family_of, preconditioner_of

__all__ = ["Flow", "coupled_decay", "segment_flow", "segment_rates"]


@dataclass(frozen=True)
class Flow:
    r"""What some steps did to the weights, seen as one flow over unit time.

    .. math:: \theta' = -h \, [P \odot (\nabla L + \rho_\text{coupled} \theta) + \rho_\text{decoupled} \theta]

    per parameter, with P one number per element.

    Attributes
    ----------
    rates : dict of str to float
        h, the integrated learning rate.
    coupled, decoupled : dict of str to float
        Weight decay that entered the gradient, and that shrank the weights beside the step.
    preconditioner : dict of str to Tensor, or None
        P, in the parameters' shapes, in the order of the module. None where it is one for all of them.
    optimizer : str
    second : dict of str to float
        c of :meth:`Trajectory.second_order`; 0 for adaptive optimizers, whose P is no more constant than that.
    """

    rates: dict[str, float]
    coupled: dict[str, float]
    decoupled: dict[str, float]
    preconditioner: dict[str, torch.Tensor] | None
    optimizer: str
    second: dict[str, float]


def segment_flow(
    trajectory: Any,
    start: int,
    end: int,
    stage: int,
    checkpoints: Sequence[Checkpoint] = (),
    weights: Sequence[float] | np.ndarray = (),
) -> Flow:
    """The flow of the steps ``start + 1 .. end`` of one stage.

    Parameters
    ----------
    trajectory : Trajectory
    start, end : int
    stage : int
        The stage's position in ``trajectory.stages``.
    checkpoints, weights : sequence of Checkpoint, sequence of float
        Those whose optimizer state is averaged: second moments with these weights. Those without a state of this
        stage's optimizer (the initial weights) are passed over; where none has one, the nearest of the stage serves.

    Returns
    -------
    flow : Flow

    Raises
    ------
    ValueError
        For an optimizer that is not covered, or one whose state was not recorded.
    """
    described = trajectory.stages[stage]
    family = family_of(described)
    rates = trajectory.integrated_learning_rate(start, end)
    decays = trajectory.mean_weight_decay(start, end)
    none = dict.fromkeys(decays, 0.0)
    if not family.adaptive:
        masks = described.masks and {
            name: described.masks[name].float() if name in described.masks else torch.ones(shape)
            for name, shape in trajectory.checkpoints[-1].parameter_shapes.items()
        }
        return Flow(rates, decays, none, masks or None, described.optimizer, trajectory.second_order(start, end))
    groups = {name: number for number, group in enumerate(described.groups) for name in group["params"]}
    decoupled = {name: family.decoupled(described.groups[number]) for name, number in groups.items()}
    states, weights = _states(trajectory, stage, checkpoints, weights, end)
    preconditioner, shrunk = {}, {}
    for name, shape in trajectory.checkpoints[-1].parameter_shapes.items():
        if name not in groups:
            preconditioner[name] = torch.zeros(shape)
            continue
        group = described.groups[groups[name]]
        moments = [_moment(family, state, group, name, shape, step, described) for step, state in states]
        moment = sum(m * float(w) for m, w in zip(moments, weights))
        adapted = preconditioner_of(moment, family.epsilon(group))
        plain = rates[name]
        rates[name], share = _rate(family, described, groups[name], name, states, start, end, plain)
        # Decoupled decay goes with the bare learning rate, whatever the optimizer makes of it for the gradient.
        shrunk[name] = decays[name] * plain / rates[name] if rates[name] else 0.0
        preconditioner[name] = adapted * share + (1.0 - share) if share < 1.0 else adapted
        if name in described.masks:
            preconditioner[name] = preconditioner[name] * described.masks[name]
    return Flow(
        rates,
        {name: 0.0 if decoupled.get(name, True) else value for name, value in decays.items()},
        {name: shrunk.get(name, 0.0) if decoupled.get(name, True) else 0.0 for name in decays},
        preconditioner,
        described.optimizer,
        none,
    )


def segment_rates(trajectory: Any, start: int, end: int, stage: int) -> dict[str, float]:
    """The rates of :func:`segment_flow` alone: the state is read only where a step's rate depends on its number."""
    if family_of(trajectory.stages[stage]).counted:
        return segment_flow(trajectory, start, end, stage).rates
    return trajectory.integrated_learning_rate(start, end)


def coupled_decay(trajectory: Any, stage: int) -> dict[str, float] | None:
    """The weight decay of a stage, where all of it entered the gradient; None where it did not, or may not have."""
    described = trajectory.stages[stage]
    family = FAMILIES.get(described.optimizer)
    if family is None or any(
        family.decoupled(group) and described.hyper["weight_decay"][:, number].any()
        for number, group in enumerate(described.groups)
    ):
        return None
    return trajectory.mean_weight_decay(described.start, described.end)


def _states(trajectory, stage, checkpoints, weights, end):
    """(step, optimizer state) of the checkpoints with one of this stage's optimizer, and weights that sum to one."""
    described = trajectory.stages[stage]
    weights = np.asarray(weights, dtype=np.float64)
    states = [(c.step, c.optimizer_state if c.step > described.start else None) for c in checkpoints]
    used = np.array([bool(state) for _, state in states], dtype=bool) & (weights > 0)
    if used.any():
        return [pair for pair, use in zip(states, used) if use], weights[used] / weights[used].sum()
    own = [c for c in trajectory.stage_checkpoints(stage) if c.step > described.start]
    for checkpoint in sorted(own, key=lambda c: abs(c.step - end)):
        if state := checkpoint.optimizer_state:
            return [(checkpoint.step, state)], np.ones(1)
    raise ValueError(
        f"stage {described.index} was trained with {described.optimizer}, whose steps depend on a state that was not "
        "recorded, and the formula for SGD would be wrong. Record it with TrajectoryRecorder(optimizer_state='auto'), "
        "the default, or pass optimizer_states= to Trajectory.from_checkpoints"
    )


def _moment(family, state, group, name, shape, step, described):
    entries = state.get(name) or {}
    if not entries:  # no gradient ever reached it
        return torch.zeros(shape)
    missing = [key for key in (*family.keys(group), "step") if key not in entries]
    if missing:
        raise ValueError(
            f"the optimizer state of {name!r} after step {step} lacks {missing}, which {described.optimizer} keeps; it "
            f"has {sorted(entries)}. Record the state of the optimizer that trained stage {described.index}"
        )
    moment = family.second_moment(entries, group)
    if not bool(torch.isfinite(moment).all()):
        raise ValueError(
            f"the optimizer state of {name!r} after step {step} is not finite: the training diverged. Attribute a "
            "shorter trajectory"
        )
    return moment


def _rate(family, described, number, name, states, start, end, plain):
    """The integrated rate of one parameter, and the share of it that was preconditioned."""
    step, entries = next(((step, s[name]) for step, s in states if s.get(name)), (None, None))
    if entries is None:
        return plain, 1.0
    group = described.groups[number]
    counts = float(entries["step"]) - step + np.arange(start + 1, end + 1, dtype=np.float64)
    factors = family.rate_factors(group, counts.clip(min=1.0))
    if factors is None:
        return plain, 1.0
    each = described.step_rates(start, end)[:, number] * described.factors.get(name, 1.0)
    adapted = float((each * factors).sum())
    unadapted = float(each[factors == 0.0].sum())
    total = adapted + unadapted
    return total, adapted / total if total > 0 else 1.0
