"""Checkpoints of one training, each with the damping that the training up to it amounts to."""

from __future__ import annotations

from ..trajectory import segment_flow


def snapshots(trajectory, gradients, penalty_of):
    """The checkpoints of a training in one stage, as places to solve at.

    A training that ended at a checkpoint has come as far as ``1/h`` damps, h the integrated learning rate up to it, in
    the metric of its optimizer.

    Parameters
    ----------
    trajectory : Trajectory
        Of one stage.
    gradients : RowGradients
    penalty_of : callable
        What a penalty in the loss adds to H at a :class:`State`: dict of parameter name to float.

    Returns
    -------
    places : list of (State, list of (float or tensor), one per block)
        The weights, and the inverse of what is added to H there: ``P / (rho P + 1/h + rho_decoupled)``.
    """
    (stage,) = trajectory.stages
    names = [block.parameters[0] for block in gradients.blocks]
    places = []
    for checkpoint in trajectory.stage_checkpoints(0):
        if checkpoint.step <= stage.start:
            continue
        flow = segment_flow(trajectory, stage.start, checkpoint.step, 0, [checkpoint], [1.0])
        if not any(flow.rates[name] for name in names):
            continue
        state = gradients.state(checkpoint)
        penalty = penalty_of(state)
        P = [1.0] * len(names) if flow.preconditioner is None else gradients.matrices(flow.preconditioner)
        scale = []
        for name, own in zip(names, P):
            rate, coupled = flow.rates[name], flow.coupled[name] + penalty.get(name, 0.0)
            scale.append(own / (coupled * own + 1.0 / rate + flow.decoupled[name]) if rate else own * 0.0)
        places.append((state, scale))
    return places
