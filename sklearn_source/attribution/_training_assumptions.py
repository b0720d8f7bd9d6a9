"""What the rate-based methods take for granted of the training: refused where it is wrong, said where it may be."""

from __future__ import annotations

from skorch.callbacks import GradientNormClipping

from ..utils._warnings import warn


def stage_position(trajectory, stage):
    """Place of a stage's number in the trajectory, and so in per-stage lists."""
    return [s.index for s in trajectory.stages].index(stage)


def warn_of_unequal_steps(net, trajectory):
    """Say what of the training the record does not tell: draws that could not be recognised, clipped gradients.

    Parameters
    ----------
    net : skorch.NeuralNet
    trajectory : Trajectory
    """
    options = net.get_params_for("iterator_train")
    reasons = []
    sampled = options.get("sampler") is not None or options.get("batch_sampler") is not None
    if sampled and any(stage.draws is None for stage in trajectory.stages):
        reasons.append(
            "its sampler may draw some rows more often than others, or never, and the rows of its batches could not be "
            "recognised"
        )
    clipping = [c for _, c in getattr(net, "callbacks_", ()) if isinstance(c, GradientNormClipping)]
    if any(callback.gradient_clip_value is not None for callback in clipping):
        reasons.append(
            "GradientNormClipping shortened steps, which the learning rates do not show: scores come out too large"
        )
    if reasons:
        warn(
            "the scores take every row to weigh 1/N in training and every step to follow its learning rate, but in "
            f"this training {'; '.join(reasons)}",
        )


def warn_of_overshooting(trajectory, segments):
    """Say where a short training with momentum oscillates: the closed form of a segment decays without.

    Parameters
    ----------
    trajectory : Trajectory
    segments : list of (stage position, list of (parameter name, largest eigenvalue))
    """
    for position, largest in segments:
        stage = trajectory.stages[position]
        for number, group in enumerate(stage.groups):
            momentum, lr = (stage.hyper[name][:, number] for name in ("momentum", "lr"))
            curvature = max((value for name, value in largest if name in group["params"]), default=0.0)
            past = (lr * curvature > (1.0 - momentum**0.5) ** 2) & (momentum > 0)
            # Oscillations die out by the root of the momentum a step: in a long training they leave no trace.
            if past.mean() > 0.25 and momentum.mean() ** (stage.n_steps / 2) > 0.05:
                warn(
                    f"in the {stage.n_steps} steps of stage {stage.index} the momentum of {momentum.max():g} "
                    f"overshoots: the largest curvature, {curvature:.2g}, times the learning rate is past (1 - "
                    "sqrt(momentum))^2, so that the weights oscillate there while scores take them to decay. Train "
                    "longer, or at a smaller rate or momentum"
                )
                return
