"""Whether a criterion is a mean over rows, and how its elements make up the rows' losses."""

from __future__ import annotations

import warnings

import torch

from ..utils._tree import map_tensors, take
from ._targets import TargetError, broadcast_hint, fits_labels, label_weights
from ._weighted_mean import FAILURES, close, is_weighted_mean


@torch.no_grad()
def find_rule(loss, output, y, x=None):
    """The rule by which a net's loss is a mean of row losses, from up to four rows.

    Parameters
    ----------
    loss : RowLoss
    output, y, x
        A batch.

    Returns
    -------
    {"mean", "batchmean", "sum", "weighted", "row", "row_sum", "row_weighted"}
        See :class:`RowLoss`.

    Raises
    ------
    ValueError
        When the criterion couples rows, or an output is not finite.
    """
    try:
        finite = bool(torch.isfinite(output).all())
    except RuntimeError:
        raise RuntimeError("row losses inside torch.func.vmap need a calibrated network: call calibrate") from None
    if not finite:
        raise ValueError("the network's outputs are not finite on a batch of rows: its training diverged")
    # A single row meets itself; rows are nudged apart, by factors that keep probabilities between 0 and 1.
    index = torch.arange(min(len(output), 4), device=output.device) if len(output) > 1 else [0, 0]
    o, t, r = _nudge(take(output.detach(), index)), take(y, index), take(x, index)
    t = t if len(output) > 1 else map_tensors(_nudge, t)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of the broadcasting that is refused below
        try:
            value = loss.get_loss(loss.shell, o, t, r)
        except Exception as error:
            hint = broadcast_hint(output, y)
            if not hint:
                raise
            raise TargetError(hint) from error
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"expected get_loss to return a tensor, got a {type(value).__name__}")
        rule, hint = _rule_of_elements(loss, o, t, r, value), broadcast_hint(output, y)
        # A broadcast absolute error can equal the mean over rows on a few rows: there the rows alone prove nothing.
        if rule is None and not (hint and loss.unreduced):
            rule = _rule_of_rows(loss, o, t, r, value)
    if rule is None and hint:
        raise TargetError(hint)
    if rule is None:
        raise ValueError(
            "the criterion couples rows: the loss of a row changes with the other rows of its batch (a "
            "contrastive loss, a statistic over the batch?), so that no row has a loss of its own; train with a "
            "criterion that is a mean, a weighted mean or a sum over rows"
        )
    return rule


def _rule_of_elements(loss, o, t, r, value):
    """The rule by which the unreduced criterion gives row losses, or None where it does not."""
    if loss.unreduced is None:
        return None
    try:
        elements = loss.get_loss(loss.unreduced, o, t, r)
        if elements.ndim == 0 or len(elements) != len(o):
            return None
        for i in range(len(o)):
            companions = torch.full((len(o),), i, device=o.device)
            changed = 0.8 * o + 0.02
            changed[i] = o[i]
            alone = loss.get_loss(loss.unreduced, changed, take(t, companions), take(r, companions))
            if alone.shape != elements.shape or not _close(alone[i], elements[i]):
                return None
    except FAILURES:
        return None
    sums = elements.reshape(len(o), -1).sum(1)
    means = {"mean": sums.mean() / elements.shape[1:].numel(), "batchmean": sums.mean(), "sum": sums.sum()}
    if loss.labels and loss.criterion.reduction == "mean" and fits_labels(o, t) and not t.is_floating_point():
        total = label_weights(loss.criterion, t).sum()
        if not total > 0:
            return "weighted"  # nothing but ignored labels among these rows
        means = {"weighted": sums.sum() / total}
    elif loss.criterion.reduction == "sum":
        means = {"sum": means["sum"], **means}
    return next((rule for rule, mean in means.items() if _close(mean, value)), None)


def _rule_of_rows(loss, o, t, r, value):
    """The rule by which ``get_loss`` on single rows gives row losses, or None where it does not."""
    if value.numel() != 1:
        raise ValueError(f"expected get_loss to return one number per batch, got shape {tuple(value.shape)}")
    rows, value = loss.rows_alone(o, t, r), value.reshape(())
    if _close(rows.mean(), value):
        return "row"
    if _close(rows.sum(), value):
        return "row_sum"
    return "row_weighted" if is_weighted_mean(loss, o, t, r, value) else None


def _nudge(rows):
    if not rows.is_floating_point():
        return rows
    step = torch.arange(1, len(rows) + 1, device=rows.device, dtype=rows.dtype) / len(rows)
    step = step.reshape(-1, *[1] * (rows.ndim - 1))
    return rows * (1 - 0.1 * step) + 0.01 * step


def _close(a, b):
    # The coarser of the two: label weights are added up in float64, the losses they divide may be float32.
    return close(a, b, a.dtype)
