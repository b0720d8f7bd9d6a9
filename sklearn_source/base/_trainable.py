"""Which parameters training moved: those are attributed, whatever their flags are now."""

from __future__ import annotations

from ..utils._warnings import warn


def mark_trained(module, trajectory):
    """Set ``requires_grad`` of a private module's parameters to whether they are attributed.

    Left out is what no stage moved (no optimizer held it, or it was frozen throughout), with a warning where it does
    not look frozen, what never got a gradient in training (a bias before batch norm), and what the user froze after the
    training. What training itself froze at some time (a backbone after the first stage) moved before, and is
    attributed.

    Parameters
    ----------
    module : torch.nn.Module
    trajectory : Trajectory
    """
    moved = trajectory.integrated_learning_rate(0, trajectory.n_steps)
    if not any(moved.values()):
        return  # every rate was zero: nothing to tell apart
    last = _last_active_step(trajectory)
    at_last = trajectory.integrated_learning_rate(last - 1, last)
    stilled = {name for stage in trajectory.stages for name, factor in stage.factors.items() if factor == 0}
    never = []
    for name, parameter in module.named_parameters():
        if not moved.get(name):
            if parameter.requires_grad and name not in stilled:
                never.append(name)
            parameter.requires_grad_(False)
        elif not at_last.get(name):
            parameter.requires_grad_(True)
    if never:
        shown = ", ".join(never[:6]) + (", ..." if len(never) > 6 else "")
        warn(
            f"no step of the training moved the parameters {shown}, which have requires_grad=True (no optimizer held "
            "them, or at rate 0): they are left out of the attribution",
        )


def _last_active_step(trajectory):
    for stage in reversed(trajectory.stages):
        active = (stage.hyper["lr"] != 0).any(axis=1).nonzero()[0]
        if len(active):
            return stage.start + int(active[-1]) + 1
    return trajectory.n_steps
