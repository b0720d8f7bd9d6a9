"""What the training rows fix in the loss of a row."""

from __future__ import annotations

from itertools import islice

import torch

from ..utils._tree import take
from ._targets import check_labels, check_targets, label_weights
from ._weighted_mean import live_rows

_TRIES = 64  # batches of four training rows looked at for some that have a loss


def probe_rows(batch_loss, rows, indices, forward):
    """Up to four training rows that have a loss: those before may have nothing but masked tokens.

    Parameters
    ----------
    batch_loss : BatchLoss
    rows, indices : Rows, ndarray of int
    forward : callable
        From a batch to the outputs that the loss reads.

    Returns
    -------
    (indices, x, y, output)
    """
    first = single = None
    for part in islice(_batches(indices, 4), _TRIES):
        x, y = rows.batch(part)
        with torch.no_grad():
            output = forward(x).detach()
        check_targets(batch_loss, output, y)
        if batch_loss.is_torchs:
            return part, x, y, output
        live, first = live_rows(batch_loss, output, y, x), first or (part, x, y, output)
        if len(live):
            single = part[live.cpu().numpy()], *(take(tree, live) for tree in (x, y, output))
        if len(live) > 1:
            return single
    if single is not None:
        return single
    if torch.isfinite(first[3]).all() and not _is_finite(batch_loss, *first[1:]):
        raise ValueError(
            f"no training row has a loss (of the first {4 * _TRIES}): all their targets are ignored or masked, and "
            "the criterion gives no number"
        )
    return first


@torch.no_grad()
def _is_finite(batch_loss, x, y, output):
    return bool(torch.isfinite(torch.as_tensor(batch_loss(output, y, x))).all())


def mean_label_weight(criterion, rows, indices, n_classes):
    """Mean weight of a training row in what the criterion divides by, with the labels checked on the way.

    Returns
    -------
    float or None
        None for class probabilities: the criterion then divides by the number of rows.
    """
    total = 0.0
    for part in _batches(indices, 1024):
        y = rows.targets(part)
        if not isinstance(y, torch.Tensor) or y.is_floating_point():
            return None
        check_labels(criterion, y, n_classes)
        total += float(label_weights(criterion, y).sum())
    if not total > 0:
        raise ValueError("every training label is ignored or has class weight zero: there is no loss to attribute")
    return total / len(indices)


def batch_size_of(net):
    """The size of a training batch, as given: -1 for all rows."""
    return net.get_params_for("iterator_train").get("batch_size", net.batch_size)


def mean_batch_size(net, n_rows):
    """Mean number of rows in a training batch, which a criterion with reduction="sum" adds up.

    ``n_rows`` is the number of training rows, None before calibration.
    """
    size = batch_size_of(net)
    if size == -1:
        if n_rows is None:
            raise ValueError('reduction="sum" with batch_size=-1 needs the number of training rows: call calibrate')
        return float(n_rows)
    if n_rows is None or (net.get_params_for("iterator_train").get("drop_last") and n_rows >= size):
        return float(size)
    return n_rows / -(-n_rows // size)  # the last batch is smaller, unless dropped


def _batches(indices, size):
    return (indices[start : start + size] for start in range(0, len(indices), size))
