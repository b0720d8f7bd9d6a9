"""Whether the recorded steps are what the formulas take them for: the optimizer's gradients against the loss's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..network import Network, slope_along, training_gradients
from ._stage import Stage

__all__ = ["StageVerification", "Verification", "verify_stages"]

# Gradients formed twice differ by rounding, by low precision, by kernels: not by more.
_RATIO, _COSINE = 0.02, 0.99
# A finite step along a gradient meets curvature, and kinks.
_SLOPE = 0.2
# What is smaller than this, relative to the gradient of all parameters, is rounding.
_ROUNDING = 1e-5
# In training mode a batch norm takes the gradient of a bias before it away, but for rounding.
_VANISHED = 1e-4


@dataclass(frozen=True)
class StageVerification:
    """What the observed steps of one stage were.

    Read more in the :ref:`User Guide <verification>`.

    Parameters
    ----------
    stage : int
        Index of the stage.
    steps : tuple of int
        The observed steps, counted over all stages.
    ratio : ndarray of shape (n_steps,)
        Size of the gradient that the optimizer got, along that of the loss: 1 where they agree.
    cosine : ndarray of shape (n_steps,)
        Between the two.
    batches : tuple of (int, int)
        Fewest and most batches whose gradients a step added up.
    factors : dict of str to float
        Parameters whose gradient was that of the loss times a constant other than 1, with the constant; 0 where it
        vanishes in training. They are taken into account.
    masks : dict of str to Tensor of bool
        Parameters some of whose elements never got a gradient though the loss has one: False there. Taken into account.
    remarks : tuple of str
        What else was seen and is not taken into account, in words.
    """

    stage: int
    steps: tuple[int, ...]
    ratio: np.ndarray
    cosine: np.ndarray
    batches: tuple[int, int]
    factors: Mapping[str, float] = field(default_factory=dict)
    masks: Mapping[str, torch.Tensor] = field(default_factory=dict, repr=False)
    remarks: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """In one line."""
        if not self.steps and not self.remarks:
            return "nothing could be verified"
        said = list(self.remarks)
        still = [name for name, factor in self.factors.items() if factor == 0]
        scaled = {name: round(factor, 4) for name, factor in self.factors.items() if factor}
        if still:
            said.append(f"{_some(still)} without gradient in training: taken into account")
        if scaled:
            said.append(f"gradients of {_some(scaled)} times {_range(list(scaled.values()))}: taken into account")
        if self.masks:
            said.append(f"elements of {_some(self.masks)} without gradient: taken into account")
        if self.batches[1] > 1:
            said.append(f"{_range(self.batches)} batches a step: taken into account")
        return "; ".join(said) or "as recorded"


@dataclass(frozen=True)
class Verification:
    """Report of :meth:`Trajectory.verify`: one line per stage.

    Read more in the :ref:`User Guide <verification>`.

    Parameters
    ----------
    stages : tuple of StageVerification
    """

    stages: tuple[StageVerification, ...]

    @property
    def remarks(self) -> list[str]:
        """What was seen and is not taken into account, over all stages."""
        return [
            (f"in stage {stage.stage} " if len(self.stages) > 1 else "") + remark
            for stage in self.stages
            for remark in stage.remarks
        ]

    def __str__(self) -> str:
        lines = [f"{'stage':>5}  {'steps':<16} {'ratio':<13} {'cosine':<13} verdict"]
        for stage in self.stages:
            steps = ", ".join(map(str, stage.steps)) or "none"
            cells = [_range(np.round(values, 4).tolist()) for values in (stage.ratio, stage.cosine)]
            lines.append(f"{stage.stage:>5}  {steps:<16} {cells[0]:<13} {cells[1]:<13} {stage.verdict}")
        return "\n".join(lines)


def verify_stages(network: Network, stages: tuple[Stage, ...], observations: Any) -> Verification:
    """Form the gradient of every observed step again and compare, see :meth:`Trajectory.verify`.

    Parameters
    ----------
    network : Network
        Calibrated; left as it is.
    stages : tuple of Stage
    observations : sequence of Observation

    Returns
    -------
    verification : Verification
    """
    result = []
    for stage in stages:
        seen: list[int] = []
        pairs: list[Any] = []
        vanished, remarks = None, _edits(stage)
        for kept in observations:
            if kept.stage != stage.index:
                continue
            observation = kept.load()
            at = observation.parameters, observation.buffers, observation.outside, observation.batches
            try:
                formed = training_gradients(network, *at, training=True)
                # In evaluation mode: for its slope, and where something may vanish in training alone, at every step.
                whole, sizes = _norm(*formed.values()), {name: _norm(g) for name, g in formed.items()}
                small = len(sizes) < len(network.parameters()) or min(sizes.values()) <= _VANISHED * whole
                wanted = not seen or (small and vanished)
                steady = training_gradients(network, *at, training=False) if wanted else {}
            except Exception as error:  # the user's own code, on a copy: what it raises is not ours to know
                remarks.append(f"the gradient of step {observation.step} could not be formed again ({error})")
                continue
            if not seen and (slope := slope_along(network, *at, steady)) is not None and abs(slope - 1) > _SLOPE:
                remarks.append(
                    f"the loss rises by {slope:.2g} of what its gradient says: a hook within the network, gradient "
                    "reversal or a straight-through function changes gradients on their way, so that no curvature of "
                    "the loss is that of the training"
                )
            seen.append(observation.step)
            pairs.append((observation.gradients, formed))
            both = formed, observation.gradients
            here = {n for n, g in steady.items() if all(_norm(side.get(n)) <= _VANISHED * _norm(g) for side in both)}
            vanished = here if vanished is None else vanished & here
        batches = (1, 1) if stage.batches is None else (int(stage.batches.min()), int(stage.batches.max()))
        names = [name for group in stage.groups for name in group["params"]]
        # What is frozen at a step has no gradient there, whatever the loss's is.
        pairs = [
            tuple({name: g for name, g in side.items() if name in moving} for side in pair)
            for pair, moving in zip(pairs, (_moving(stage, step) for step in seen))
        ]
        ratio, cosine, factors, masks = _compare(names, pairs, remarks)
        factors |= {name: 0.0 for name in names if name in (vanished or ())}
        result.append(
            StageVerification(stage.index, tuple(seen), ratio, cosine, batches, factors, masks, tuple(remarks))
        )
    return Verification(tuple(result))


def _moving(stage, step):
    """Names of the parameters that the optimizer held, with a rate, at a step."""
    rates = stage.hyper["lr"][step - stage.start - 1]
    return {name for group, rate in zip(stage.groups, rates) if rate != 0 for name in group["params"]}


def _edits(stage):
    if not stage.edits:
        return []
    step, size = stage.edits[0]
    largest = max(size for _, size in stage.edits)
    return [
        f"something else than the optimizer changed the weights, after step {step} by {size:.2g} of their norm"
        + (f" (seen {len(stage.edits)} times, up to {largest:.2g})" if len(stage.edits) > 1 else "")
        + ": a callback that clamps, rescales, decays or averages them, whose effect scores do not hold"
    ]


def _compare(names, pairs, remarks):
    """Ratio and cosine over all parameters, constant factors and masks; what is neither is added to the remarks."""
    ratios, cosines, factors, masks = [], [], {}, {}
    varying, other = {}, {}
    sizes = [max(_norm(*formed.values()), 1e-300) for _, formed in pairs]
    for name in names:
        here = [(number, pair) for number, pair in enumerate(pairs) if any(name in side for side in pair)]
        got, formed = ([_flat(pair[k].get(name), pairs, name) for _, pair in here] for k in (0, 1))
        wholes = [sizes[number] for number, _ in here]
        if max((_norm(f) / whole for f, whole in zip(formed, wholes)), default=0.0) <= _ROUNDING:
            continue
        due = torch.stack([f.abs() > _ROUNDING * f.abs().max() for f in formed]).any(0)
        still = due & ~torch.stack([g != 0 for g in got]).any(0)
        if still.any():
            if bool((still == due).all()):
                factors[name] = 0.0
                continue
            shape = next(side[name].shape for pair in pairs for side in pair if name in side)
            masks[name] = (~still).reshape(shape)
        each = [
            _ratio_and_cosine(g[~still], f[~still])
            for g, f, whole in zip(got, formed, wholes)
            if _norm(f[~still]) > _ROUNDING * whole
        ]
        if not each:
            continue
        ratio, cosine = np.array(each).T
        if cosine.min() < _COSINE:
            other[name] = cosine.min()
        elif np.abs(ratio - 1).max() <= _RATIO:
            continue
        elif np.ptp(ratio) <= _RATIO * abs(ratio.mean()):
            # To a few digits: a weight and its bias with one factor share a block, whatever the rounding.
            factors[name] = float(f"{ratio.mean():.4g}")
        else:
            varying[name] = ratio
    for got, formed in pairs:
        flat = [torch.cat([_flat(side.get(n), pairs, n) for n in names]) for side in (got, formed)]
        ratio, cosine = _ratio_and_cosine(*flat)
        ratios.append(ratio)
        cosines.append(cosine)
    if other:
        size = f"cosine {_range(np.round(cosines, 2).tolist())}, ratio {_range(np.round(ratios, 2).tolist())}"
        remarks.append(
            f"the optimizer got other gradients than those of the loss ({size} over all parameters; {_some(other)}): a "
            "hook, on_grad_computed, train_step, noise or clipping changed them, or criterion or module were exchanged "
            "since, and scores are those of the loss's own"
        )
    elif varying:
        values = np.concatenate(list(varying.values()))
        remarks.append(
            f"the gradients of {_some(varying)} were scaled by factors that changed, from {values.min():.2g} to "
            f"{values.max():.2g} (clipping, a GradScaler, an own train_step?), which scores do not hold"
        )
    return np.array(ratios), np.array(cosines), factors, masks


def _flat(gradient, pairs, name):
    """A gradient as a float64 vector, zeros where there is none."""
    if gradient is None:
        like = next((side[name] for pair in pairs for side in pair if name in side), None)
        return torch.zeros(0 if like is None else like.numel(), dtype=torch.float64)
    return gradient.detach().double().flatten()


def _norm(*tensors):
    return sum(float(t.double().square().sum()) for t in tensors if t is not None) ** 0.5


def _ratio_and_cosine(got, formed):
    product, square, other = (float(v) for v in (got @ formed, formed @ formed, got @ got))
    if square == 0 or other == 0:
        return (1.0, 1.0) if square == other else (0.0, 0.0)
    return product / square, product / (square * other) ** 0.5


def _some(names):
    names = list(names)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _range(values):
    if not len(values):
        return "-"
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
