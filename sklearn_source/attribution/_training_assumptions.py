"""What the rate-based methods take for granted of the training: refused where it is wrong, said where it may be."""

from __future__ import annotations

from skorch.callbacks import GradientNormClipping

from ..utils._warnings import warn


def stage_position(trajectory, stage):
    """Place of a stage's number in the trajectory, and so in per-stage lists."""
    return [s.index for s in trajectory.stages].index(stage)


def warn_of_unequal_steps(net, credited):
    """Say what of the training the learning rates do not tell: rows that weighed more than others, clipped gradients.

    Parameters
    ----------
    net : skorch.NeuralNet
    credited : list of int arrays
        Per stage, the rows trained on.
    """
    options = net.get_params_for("iterator_train")
    size = options.get("batch_size", net.batch_size)
    reasons = []
    if options.get("sampler") is not None or options.get("batch_sampler") is not None:
        reasons.append("its sampler may draw some rows more often than others, or never")
    elif not options.get("shuffle"):
        left = sorted({len(rows) % size for rows in credited} - {0}) if size != -1 else []
        if left and options.get("drop_last"):
            reasons.append(
                f"without shuffling, drop_last=True left the last {left[-1]} rows out of every epoch: give them to no "
                "fit, or set iterator_train__shuffle=True"
            )
        elif left and any(len(rows) > size for rows in credited):
            share = size / left[-1]
            reasons.append(
                f"without shuffling, the last {left[-1]} rows always shared a smaller batch and weighed {share:.2g} "
                "times as much as the others: set iterator_train__shuffle=True, or a batch_size that divides the rows"
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
