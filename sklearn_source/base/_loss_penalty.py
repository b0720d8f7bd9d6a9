"""Parts of a loss that read the parameters themselves: what they do to the scores, or that nothing can be said."""

from __future__ import annotations

from ..utils._warnings import warn

_MOST = 0.1  # of the rows' gradient; beyond it scores that leave a part out would be another loss's


def check_rows_only_through_outputs(network, rows, index):
    """Say, or refuse, that a part of the loss reaches parameters by a way that is not the outputs, row by row.

    Parameters
    ----------
    network : Network
        At the trained weights.
    rows, index : Rows, ndarray of int
        The training rows.

    Raises
    ------
    ValueError
        Where that part is more than a tenth of the rows' gradient.
    """
    _, share = network.penalty(rows, index)
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
