"""Whether a loss is a weighted mean over rows (of tokens counted, samples weighed), and with what weights.

Here ``batch_loss`` is a :class:`.BatchLoss`, and ``output, y, x`` are a batch.
"""

from __future__ import annotations

import torch

from ..utils._tree import map_tensors, take

# What a user's criterion may raise on inputs it was not made for: single rows, an unknown reduction, vmap.
FAILURES = (RuntimeError, NotImplementedError, TypeError, ValueError)
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}
_GOLDEN = 0.6180339887498949


def stand_in(output):
    """Made-up outputs like ``output``, the same for every row: a weight must not depend on outputs.

    Numbers from 0.2 to 0.8 are logits, probabilities and rates alike, and no criterion is flat there as it may be where
    a network has learned its rows by heart.
    """
    n = output.shape[1:].numel()
    row = torch.arange(1, n + 1, dtype=torch.float64, device=output.device)
    row = (0.2 + 0.6 * torch.frac(_GOLDEN * row)).to(output.dtype)
    return row.reshape(1, *output.shape[1:]).expand(output.shape).clone()


def live_rows(batch_loss, output, y, x):
    """Positions of the rows that the loss of the batch depends on: those with a token that is not masked, say."""
    leaf = stand_in(output).requires_grad_()
    try:
        with torch.enable_grad():
            value = batch_loss(leaf, y, x).reshape(())
            grad = torch.autograd.grad(value, leaf)[0]
    except (*FAILURES, AttributeError):  # what is wrong with it is said by the check that follows
        return torch.arange(len(output), device=output.device)
    return torch.nonzero(_by_row(grad != 0).any(1) & torch.isfinite(value)).flatten()


def shares(batch_loss, output, y, x):
    """How much of the batch's loss is each row's: ``W_n / sum W`` where the loss is ``sum W_n l_n / sum W``.

    ``l_n`` is the loss of the row as a batch of one. Seen from gradients: the batch's gradient in a row's output is
    the row's own, times its share.

    Returns
    -------
    shares : Tensor (B,) of float64, or None
        Zero for rows without influence on the loss (every token masked), whose own loss may then be anything. None
        where some row's gradient is not a multiple of its own.
    """
    pair = _shares(batch_loss, output, y, x)
    return None if pair is None else pair[0]


def _shares(batch_loss, output, y, x):
    """:func:`shares`, and which rows have no influence, but a loss of their own (a sample weight of zero, say)."""
    leaf = output.detach().clone().requires_grad_()
    with torch.enable_grad():
        try:
            value = batch_loss(leaf, y, x)
            together = _by_row(torch.autograd.grad(value.reshape(()), leaf)[0])
            alone = _by_row(torch.autograd.grad(batch_loss.rows_alone(leaf, y, x).sum(), leaf)[0])
        except FAILURES:
            return None
    silent = (together == 0).all(1)
    idle = silent & torch.isfinite(alone).all(1)
    alone = alone.where(~silent[:, None], 0)
    square = alone.square().sum(1, dtype=torch.float64)
    share = (together * alone).sum(1, dtype=torch.float64) / square.where(~silent, 1)
    tolerance = TOLERANCE.get(output.dtype, 2e-2)
    rest = (together - share[:, None].to(alone.dtype) * alone).abs().amax(1)
    good = torch.isfinite(share).all() and (share >= 0).all() and (rest <= tolerance * together.abs().amax(1)).all()
    return (share, idle) if good else None


def is_weighted_mean(batch_loss, output, y, x, value):
    """Whether a batch of up to four rows has ``sum W_n l_n / sum W`` as its loss, with weights of the rows alone.

    The shares have to be the same at other outputs, sum to one, keep their proportions in a smaller batch, and give the
    loss, which is ``value``.
    """
    share = shares(batch_loss, output, y, x)
    elsewhere = shares(batch_loss, stand_in(output), y, x)
    if share is None or elsewhere is None or not close(share, elsewhere, output.dtype):
        return False
    live = torch.nonzero(share).flatten()
    if not close(share.sum(), torch.ones_like(share.sum()), output.dtype):
        return False
    for pair in (live[:2], live[-2:]):
        part = shares(batch_loss, take(output, pair), take(y, pair), take(x, pair))
        if part is None or not close(part, share[pair] / share[pair].sum(), output.dtype):
            return False
    with torch.no_grad():
        alone = batch_loss.rows_alone(*(take(tree, live) for tree in (output, y, x))).double()
    return close((share[live] * alone).sum(), value, output.dtype)


def weights_beside(batch_loss, output, y, x):
    """Weights of all rows but the last, in units of the last row's: (B - 1,), or None as :func:`shares`.

    Rows without influence may be counted all the same, as in the mean of weighed losses: what the shares lack to one
    is theirs.
    """
    pair = _shares(batch_loss, stand_in(output), y, x)
    if pair is None or not pair[0][-1] > 0:
        return None
    share, idle = pair
    left = 1 - share.sum()
    if idle.any() and left > TOLERANCE.get(output.dtype, 2e-2):
        share = share.where(~idle, left / idle.sum())
    return share[:-1] / share[-1]


def _by_row(tensor):
    """(B, ...) as (B, D)."""
    return tensor.reshape(len(tensor), -1)


def joined(first, second):
    """Two batches as one."""
    if isinstance(first, torch.Tensor):
        return torch.cat([first, second])
    if isinstance(first, dict):
        return {key: joined(first[key], second[key]) for key in first}
    if isinstance(first, list):
        return [joined(a, b) for a, b in zip(first, second)]
    return first


def kept(tree):
    """A copy that shares no memory."""
    return map_tensors(lambda tensor: tensor.detach().clone(), tree)


def close(a, b, dtype):
    """Whether two results agree to the precision of ``dtype``, or of the coarser of their own."""
    tolerance = max(TOLERANCE.get(kind, 2e-2) for kind in (a.dtype, b.dtype, dtype))
    a, b = a.double(), b.double()
    if not torch.isfinite(b).all():
        return False
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()) + 1e-12)
