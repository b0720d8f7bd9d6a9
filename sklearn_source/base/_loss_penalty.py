"""Parts of a loss that read the parameters themselves: what they do to the scores, or that nothing can be said."""

from __future__ import annotations

import torch

from ..utils._warnings import warn

_MOST = 0.1  # of the rows' gradient; beyond it scores that leave a part out would be another loss's


def check_penalty(network, rows, index, optimizer):
    """Say, or refuse, what of the loss reaches parameters by another way than the outputs and has no curvature.

    Parameters
    ----------
    network : Network
        At the trained weights.
    rows, index : Rows, ndarray of int
        The training rows.
    optimizer : torch.optim.Optimizer or None
        That of the training, at its last rates.

    Raises
    ------
    ValueError
        Where a part that reads rows too is more than a tenth of their gradient.
    """
    penalty, share = network.penalty(rows, index)
    if penalty is not None:
        _warn_of_kinks(network, rows, index, optimizer, penalty)
    if not share:
        return
    what = (
        "a part of the loss reads parameters and rows at once, and not through what the module returns (activations "
        f"that the module keeps, or a second pass through it?): {share:.2g} times the gradient of a few training rows"
    )
    way = "return from forward, in a tuple behind the output, what get_loss needs, and read it from y_pred"
    if share > _MOST:
        raise ValueError(f"{what} would be missing from the scores: {way}")
    warn(f"{what} is missing from the scores: {way}")


def _warn_of_kinks(network, rows, index, optimizer, penalty):
    """Say that steps of the training cross a kink of the penalty, as those of L1 do at zero, back and forth."""
    rate = max((float(group["lr"]) for group in getattr(optimizer, "param_groups", ())), default=0.0)
    gradient = penalty.gradient
    if not rate or penalty.missed or not any(bool(g.any()) for g in gradient.values()):
        return
    own = network.parameters()
    plain = isinstance(optimizer, torch.optim.SGD)  # others take steps of about the rate, however small the gradient
    steps = {name: 2 * rate * (g if plain else g.sign()) for name, g in gradient.items()}
    try:
        network.load({name: value - steps[name] if name in steps else value for name, value in own.items()})
        beyond, _ = network.penalty(rows, index)
    finally:
        network.load(own)
    if beyond is None:
        return
    held = 0
    for name, g in gradient.items():
        smooth = g - penalty.curvature[name] * steps[name]
        jumps = (beyond.gradient[name] - smooth).abs() > 0.5 * g.abs()
        held += int((jumps & (g * beyond.gradient[name] < 0)).sum())
    if held:
        warn(
            f"the loss has a penalty that holds {held} of {sum(g.numel() for g in gradient.values())} parameters at a "
            "kink (L1 at zero): the scores take these parameters to be free to move"
        )


def penalty_curvature(network, rows, index, values, weights):
    """The mean curvature of the loss's penalty over some weights of the network, which are then as they were.

    Parameters
    ----------
    network : Network
    rows, index : Rows, ndarray of int
        The training rows.
    values : iterable of (parameters, buffers)
        By name; not asked for where torch's own criterion reads no parameters.
    weights : sequence of float
        Summing to one.

    Returns
    -------
    curvature : dict of str to float
        By name of the parameter; empty where the loss has no penalty.
    """
    if network.row_loss.batch_loss.is_torchs:
        return {}
    own = network.parameters(), network.buffers()
    total, missed = {}, []
    try:
        for (parameters, buffers), weight in zip(values, weights):
            network.load(parameters, buffers)
            penalty, _ = network.penalty(rows, index)
            if penalty is None:
                continue
            missed.append(penalty.missed)
            for name, value in penalty.curvature.items():
                total[name] = total.get(name, 0.0) + float(weight) * value
    finally:
        network.load(*own)
    if max(missed, default=0) > 0:
        warn(
            "the loss has a penalty on the parameters whose curvature is not one number per parameter tensor (a norm, "
            "a product of parameters, another coefficient for every element?): its mean over each tensor stands for "
            f"it, which leaves out {max(missed):.2g} of it"
        )
    # To a few digits: parameters with one penalty share a block, whatever the rounding of a mean.
    return {name: float(f"{value:.5g}") for name, value in total.items()}
