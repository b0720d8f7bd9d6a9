"""What a Newton step adds to H: the optimizer's weight decay, a damping, and the metric that both are simple in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..trajectory import coupled_decay, present_step, segment_flow
from ..utils._warnings import warn
from ._source_segment import relative_rates


@dataclass(frozen=True)
class Regularization:
    """Per parameter, what holds it back beside the curvature of the rows.

    Attributes
    ----------
    coupled : dict of str to float
        Weight decay that enters the gradient, and the curvature of a penalty in the loss: added to H.
    decoupled : dict of str to float
        Weight decay beside the step. The training stands still where ``P grad L + rho theta = 0``: it acts on H as
        ``rho / last``, elementwise, the preconditioner being taken as given.
    last : dict of str to Tensor, or None
        P where the training ended, in the parameters' shapes; None where there is none.
    rates : dict of str to float, or None
        h, the integrated learning rate of the whole training. None: damping is none of the training's.
    moved : dict of str to Tensor, or None
        ``sum_l h_l P_l`` over the stages, in the parameters' shapes; None where P was one throughout.
    """

    coupled: dict[str, float]
    decoupled: dict[str, float]
    last: dict[str, torch.Tensor] | None = None
    rates: dict[str, float] | None = None
    moved: dict[str, torch.Tensor] | None = None

    def signature(self):
        """By name, what has to be alike for a weight and its bias to share a block; None where everything is."""
        parts = [self.coupled, self.decoupled, *([] if self.rates is None else [self.rates])]
        if all(len(set(part.values())) < 2 for part in parts):
            return None
        return {name: tuple(part.get(name, 0.0) for part in parts) for name in self.coupled}

    def with_penalty(self, penalty):
        """The same with what a penalty in the loss adds to H: it enters the gradient, as coupled decay does."""
        coupled = {name: rho + penalty.get(name, 0.0) for name, rho in self.coupled.items()}
        return Regularization(coupled, self.decoupled, self.last, self.rates, self.moved)

    def system(self, gradients):
        """The :class:`System` of the blocks of ``gradients``, a :class:`~sklearn_source.base.RowGradients`."""
        names = [block.parameters[0] for block in gradients.blocks]
        coupled, decoupled = ([decays[name] for name in names] for decays in (self.coupled, self.decoupled))
        last = gradients.matrices(self.last) if self.last is not None and any(decoupled) else None
        if self.rates is None:
            if last is None:
                return System(coupled)
            penalty = [rho * _inverse(P) if rho else None for rho, P in zip(decoupled, last)]
            roots = [(P > 0).to(P.dtype) if rho else torch.ones_like(P) for rho, P in zip(decoupled, last)]
            return System(coupled, roots, penalty)
        rates = [self.rates[name] for name in names]
        h, relative = relative_rates(rates)
        if h == 0:  # nothing moved, and nothing has influence
            relative = [0.0] * len(relative)
        bare = 1.0 / h if h else 1.0
        dampings = [1.0 / rate if rate else float("inf") for rate in rates]
        if self.moved is None:
            shifts = [bare + rho * p for rho, p in zip(coupled, relative)]
            return System(shifts, relative=None if set(relative) == {1.0} else relative, dampings=dampings)
        metric = [moved / h if h else moved for moved in gradients.matrices(self.moved)]
        penalty = [rho * G if rho else None for rho, G in zip(coupled, metric)]
        shifts = [bare] * len(names)
        for i, rho in enumerate(decoupled):
            if not rho:
                continue
            ratio = metric[i] * _inverse(last[i])
            moves = ratio > 0
            share = float(ratio[moves].double().mean()) if bool(moves.any()) else 0.0
            if torch.allclose(ratio[moves], ratio.new_tensor(share), rtol=1e-5):  # one number, where one stage was all
                shifts[i] += rho * share
            else:
                penalty[i] = rho * ratio if penalty[i] is None else penalty[i] + rho * ratio
        return System(shifts, [G.sqrt() for G in metric], penalty, dampings=dampings)


@dataclass(frozen=True)
class System:
    """``R (R H R + penalty + shifts)^-1 R`` for the blocks of a network.

    Attributes
    ----------
    shifts : list of float, one per block
    roots : list of tensor (groups, out, in), or None
        R, elementwise. None: the roots of ``relative``.
    penalty : list of (tensor (groups, out, in) or None), or None
        Goes with ``roots``.
    relative : list of float, one per block, or None
        Rates relative to the largest. None: ones.
    dampings : list of float, one per block, or None
        What of it all is called damping; None where that is still to be added.
    """

    shifts: list[float]
    roots: list[torch.Tensor] | None = None
    penalty: list[torch.Tensor | None] | None = None
    relative: list[float] | None = None
    dampings: list[float] | None = None

    def scale(self, blocks):
        """The inverse of what is added to H, in parameters' coordinates: floats or tensors, one per block."""
        roots = self.roots or [p**0.5 for p in self.relative or [1.0] * len(blocks)]
        penalty = self.penalty or [None] * len(blocks)
        result = []
        for root, shift, held, block in zip(roots, self.shifts, penalty, blocks):
            added = shift if held is None else held + shift
            if not (added > 0.0 if held is None else bool((added > 0).all())):
                raise ValueError(
                    f"nothing is added to the curvature of {block.name!r}, so that rows that are removed may leave "
                    "directions without any: pass damping > 0"
                )
            result.append(root**2 / added)
        return result

    def elementwise(self, blocks, like):
        """The same with all that is added as ``penalty``: for curvatures that take one number for all blocks."""
        ones = [torch.ones(block.shape, dtype=like.dtype, device=like.device) for block in blocks]
        roots = self.roots or [one * p**0.5 for one, p in zip(ones, self.relative or [1.0] * len(ones))]
        common = min(self.shifts)
        penalty = [
            (shift - common) * one if held is None else held + (shift - common)
            for one, shift, held in zip(ones, self.shifts, self.penalty or [None] * len(ones))
        ]
        return System([common] * len(ones), roots, penalty, dampings=self.dampings)

    def mean_penalty(self, couples_blocks):
        """Per block, the mean of ``penalty``, over all blocks where these are one matrix."""
        if self.penalty is None:
            return [0.0] * len(self.shifts)
        totals = [0.0 if part is None else float(part.double().sum()) for part in self.penalty]
        sizes = [root.numel() for root in self.roots]
        if couples_blocks:
            return [sum(totals) / sum(sizes)] * len(sizes)
        return [total / size for total, size in zip(totals, sizes)]


def regularization(net, trajectory, names, *, from_training):
    """What the training of ``net`` says of its fixed point, and how far it came.

    Parameters
    ----------
    net : skorch.NeuralNet
    trajectory : Trajectory or None
        None where nothing was recorded: decay and preconditioner are then those of the net's optimizer.
    names : iterable of str
        The parameters.
    from_training : bool
        Whether damping is the training's.

    Returns
    -------
    regularization : Regularization

    Raises
    ------
    ValueError
        Where ``from_training`` and the optimizer is not covered, or its state was not recorded.
    """
    if from_training:
        return _of_stages(trajectory, range(len(trajectory.stages)), names, from_training)
    record = present_step(net) if trajectory is None else trajectory
    nothing = dict.fromkeys(names, 0.0)
    if record is None or not any(stage.hyper["weight_decay"].any() for stage in record.stages):
        return Regularization(nothing, dict(nothing))
    last = {}  # the last stage that trained a parameter is where its decay found its balance
    for position, stage in enumerate(record.stages):
        last.update((name, position) for group in stage.groups for name in group["params"])
    used = sorted({last[name] for name in names if name in last})
    try:
        return _of_stages(record, used, names, from_training)
    except ValueError:
        pass
    coupled = {}
    for position in used:
        decays = coupled_decay(record, position)
        if decays is None:
            warn(
                f"the weight decay of {record.stages[position].optimizer} is no part of the curvature: what it does "
                "depends on a preconditioner that is not known (a state that was not kept, or an optimizer that is not "
                "covered). Record the training with a TrajectoryRecorder, or add the decay to damping"
            )
            decays = nothing
        coupled.update({name: decays.get(name, 0.0) for name in names if last.get(name) == position})
    return Regularization({**nothing, **coupled}, nothing)


def _of_stages(trajectory, positions, names, from_training):
    """:class:`Regularization` of the flows of some stages, each with its last state."""
    names = list(names)
    coupled, decoupled, rates = (dict.fromkeys(names, 0.0) for _ in range(3))
    shapes = trajectory.checkpoints[-1].parameter_shapes
    last, moved = ({name: torch.zeros(shapes[name]) for name in names} for _ in range(2))
    preconditioned = False
    for position in positions:
        stage = trajectory.stages[position]
        points = trajectory.stage_checkpoints(position)[-1:]
        flow = segment_flow(trajectory, stage.start, stage.end, position, points, np.ones(len(points)))
        preconditioned |= flow.preconditioner is not None
        for name in names:
            if not flow.rates.get(name):
                continue
            P = torch.ones(shapes[name]) if flow.preconditioner is None else flow.preconditioner[name]
            # To a few digits: a decay is one number, whatever the rounding of its mean over steps.
            coupled[name], decoupled[name] = (float(f"{d[name]:.12g}") for d in (flow.coupled, flow.decoupled))
            last[name] = P
            rates[name] += flow.rates[name]
            moved[name] += flow.rates[name] * P
    return Regularization(
        coupled,
        decoupled,
        last if preconditioned else None,
        rates if from_training else None,
        moved if from_training and preconditioned else None,
    )


def _inverse(P):
    """``1 / P``, and 0 where nothing moved."""
    return torch.where(P > 0, 1.0 / torch.where(P > 0, P, 1.0), 0.0)
