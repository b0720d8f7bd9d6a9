"""Whether a criterion is a mean over rows, and how its elements or single rows make up the rows' losses."""

from __future__ import annotations

import contextlib
import enum
import warnings

import torch

from ..utils._tree import map_tensors, take
from ._targets import TargetError, broadcast_hint, fits_labels, label_weights
from ._weighted_mean import FAILURES, close, is_weighted_mean, stand_in


class Reduction(enum.Enum):
    """How the loss of a batch comes about.

    Of the unreduced criterion's elements, added up over each row: ``MEAN`` (over elements), ``BATCHMEAN`` (over rows),
    ``SUM``, ``WEIGHTED`` (over the weights of the labels). Of ``get_loss`` on single rows: ``ROW_MEAN``, ``ROW_SUM``,
    ``ROW_WEIGHTED`` (a weight of the batch is divided by: tokens counted over a flattened batch, samples weighed).
    """

    MEAN = "mean"
    BATCHMEAN = "batchmean"
    SUM = "sum"
    WEIGHTED = "weighted"
    ROW_MEAN = "row_mean"
    ROW_SUM = "row_sum"
    ROW_WEIGHTED = "row_weighted"

    @property
    def asks_rows_alone(self):
        """Whether row losses come from ``get_loss`` on single rows."""
        return self in (Reduction.ROW_MEAN, Reduction.ROW_SUM, Reduction.ROW_WEIGHTED)

    @property
    def may_hide_weights(self):
        """Whether a few rows that weigh the same by chance would look like this."""
        return self in (Reduction.MEAN, Reduction.BATCHMEAN, Reduction.ROW_MEAN, Reduction.ROW_WEIGHTED)


@torch.no_grad()
def find_reduction(batch_loss, output, y, x=None):
    """The reduction by which a net's loss is a mean of row losses, from up to four rows.

    It is found by comparing with ``get_loss`` on these rows; that no row's loss depends on another row, by changing the
    others.

    Parameters
    ----------
    batch_loss : BatchLoss
    output, y, x
        A batch.

    Returns
    -------
    Reduction

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
    # Of several outputs, as a siamese network has, the loss of one alone says nothing of the targets' shape.
    hint = None if batch_loss.outputs.are_several else broadcast_hint(output, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of the broadcasting that is refused below
        try:
            value = batch_loss(o, t, r)
        except Exception as error:
            if not hint:
                raise
            raise TargetError(hint) from error
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"expected get_loss to return a tensor, got a {type(value).__name__}")
        reduction = _reduction(batch_loss, o, t, r, value, hint)
        if reduction is None and not batch_loss.is_torchs:  # a sum over rows, and a penalty once
            beyond = _BeyondPenalty(batch_loss)
            with contextlib.suppress(*FAILURES):
                reduction = _reduction(beyond, o, t, r, beyond(o, t, r), hint)
    if reduction is None and hint:
        raise TargetError(hint)
    if reduction is None:
        with torch.no_grad():
            again = batch_loss(o, t, r)
        if not _close(again, value):
            size = float((again - value).abs().max() / value.abs().max().clamp_min(1e-30))
            raise ValueError(
                f"the loss draws random numbers: two calls for the same rows differ by {size:.2g} of it, so that no "
                "row has one loss of its own; draw them in the example of a StochasticLossMixin or in the Dataset from "
                "the row's index, or leave the noise out of get_loss"
            )
        raise ValueError(
            "the criterion couples rows: the loss of a row changes with the other rows of its batch (a "
            "contrastive loss, a statistic over the batch?), so that no row has a loss of its own; train with a "
            "criterion that is a mean, a weighted mean or a sum over rows"
        )
    return reduction


class _BeyondPenalty:
    """A :class:`.BatchLoss` less what it is at made-up outputs, and so without what no output changes: a penalty."""

    def __init__(self, batch_loss):
        self._batch_loss = batch_loss

    def __getattr__(self, name):
        return getattr(self._batch_loss, name)

    def __call__(self, output, y, x):
        return self._batch_loss(output, y, x) - self._batch_loss(stand_in(output), y, x)

    def elements(self, output, y, x):
        return self._batch_loss.elements(output, y, x) - self._batch_loss.elements(stand_in(output), y, x)

    def rows_alone(self, output, y, x):
        return self._batch_loss.rows_alone(output, y, x) - self._batch_loss.rows_alone(stand_in(output), y, x)


def _reduction(batch_loss, o, t, r, value, hint):
    """The reduction by which elements or single rows give ``value``, or None; ``hint`` of targets that broadcast."""
    reduction = _reduction_of_elements(batch_loss, o, t, r, value)
    # A broadcast absolute error can equal the mean over rows on a few rows: there the rows alone prove nothing.
    if reduction is None and not (hint and batch_loss.has_elements):
        reduction = _reduction_of_rows(batch_loss, o, t, r, value)
    return reduction


def _reduction_of_elements(batch_loss, o, t, r, value):
    """The reduction by which elements of the unreduced criterion give ``value``; None where none does, or rows mix."""
    if not batch_loss.has_elements:
        return None
    try:
        elements = batch_loss.elements(o, t, r)
        if elements.ndim == 0 or len(elements) != len(o):
            return None
        for i in range(len(o)):
            companions = torch.full((len(o),), i, device=o.device)
            changed = 0.8 * o + 0.02
            changed[i] = o[i]
            alone = batch_loss.elements(changed, take(t, companions), take(r, companions))
            if alone.shape != elements.shape or not _close(alone[i], elements[i]):
                return None
    except FAILURES:
        return None
    sums, criterion = elements.reshape(len(o), -1).sum(1), batch_loss.criterion
    means = {
        Reduction.MEAN: sums.mean() / elements.shape[1:].numel(),
        Reduction.BATCHMEAN: sums.mean(),
        Reduction.SUM: sums.sum(),
    }
    if batch_loss.takes_labels and criterion.reduction == "mean" and fits_labels(o, t) and not t.is_floating_point():
        total = label_weights(criterion, t).sum()
        if not total > 0:
            return Reduction.WEIGHTED  # nothing but ignored labels among these rows
        means = {Reduction.WEIGHTED: sums.sum() / total}
    elif criterion.reduction == "sum":
        means = {Reduction.SUM: means[Reduction.SUM], **means}
    return next((reduction for reduction, mean in means.items() if _close(mean, value)), None)


def _reduction_of_rows(batch_loss, o, t, r, value):
    """The reduction by which ``get_loss`` on single rows gives ``value``, or None where none does."""
    if value.numel() != 1:
        raise ValueError(f"expected get_loss to return one number per batch, got shape {tuple(value.shape)}")
    rows, value = batch_loss.rows_alone(o, t, r), value.reshape(())
    if _close(rows.mean(), value):
        return Reduction.ROW_MEAN
    if _close(rows.sum(), value):
        return Reduction.ROW_SUM
    return Reduction.ROW_WEIGHTED if is_weighted_mean(batch_loss, o, t, r, value) else None


def _nudge(rows):
    """Floating-point rows a little apart from each other."""
    if not rows.is_floating_point():
        return rows
    step = torch.arange(1, len(rows) + 1, device=rows.device, dtype=rows.dtype) / len(rows)
    step = step.reshape(-1, *[1] * (rows.ndim - 1))
    return rows * (1 - 0.1 * step) + 0.01 * step


def _close(a, b):
    # The coarser of the two: label weights are added up in float64, the losses they divide may be float32.
    return close(a, b, a.dtype)
