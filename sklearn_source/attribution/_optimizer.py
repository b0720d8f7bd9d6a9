"""Which optimizers the rate-based methods are right for."""

from __future__ import annotations


def require_sgd(trajectory, method):
    """Refuse trajectories whose steps are not learning rate times a momentum of gradients."""
    for stage in trajectory.stages:
        if stage.optimizer != "SGD":
            raise ValueError(
                f"stage {stage.index} was trained with {stage.optimizer}; {method} covers torch.optim.SGD (momentum, "
                "dampening, Nesterov, weight decay) for now, and its formula would be wrong for an adaptive "
                "optimizer. Train with SGD, or use InfluenceFunctions or GradientSimilarity, which do not depend on "
                "the optimizer"
            )
        if any(group.get("maximize") for group in stage.groups):
            raise ValueError(
                f"{method} does not cover optimizers with maximize=True: train on the negated loss instead"
            )


def stage_position(trajectory, stage):
    """Place of a stage's number in the trajectory, and so in per-stage lists."""
    return [s.index for s in trajectory.stages].index(stage)


def require_rates(rates, names, stage):
    """Every attributed parameter must have been in the optimizer."""
    missing = [name for name in names if name not in rates]
    if missing:
        raise ValueError(
            f"the optimizer of stage {stage} did not hold the parameters {missing}, which have requires_grad=True: "
            "give it all of them, set requires_grad=False, or leave them out with layers="
        )
