"""Validation of targets against the outputs, and the weights of labels."""

from __future__ import annotations

import torch


class TargetError(ValueError):
    """Targets that do not fit the network's outputs, whatever is asked of it."""


def check_targets(batch_loss, output, y):
    """Refuse targets that are missing or do not fit the outputs.

    Parameters
    ----------
    batch_loss : BatchLoss
    output, y
        A batch.

    Raises
    ------
    TargetError
    """
    if y is None:
        if batch_loss.takes_no_targets:
            return
        raise TargetError("the loss of a row needs its target, but y is None: pass y")
    if not isinstance(y, torch.Tensor):
        return
    if y.ndim == 0 or len(y) != len(output):
        raise TargetError(f"expected as many targets as rows: {len(output)} rows, y of shape {tuple(y.shape)}")
    if len(y) and not y.numel():
        raise TargetError(f"expected targets of every row, got y of shape {tuple(y.shape)}, which holds none")
    if batch_loss.takes_labels and (batch_loss.is_torchs or fits_labels(output, y)):
        _check_label_shape(output, y)
        if not y.is_floating_point():
            check_labels(batch_loss.criterion, y, output.shape[1])
    elif batch_loss.is_torchs and isinstance(batch_loss.criterion, (torch.nn.BCEWithLogitsLoss, torch.nn.BCELoss)):
        _check_binary(batch_loss.criterion, y)


def _check_binary(criterion, y):
    """Refuse targets that are no probabilities of a yes."""
    if y.numel() and (holds(y.min() < 0) or holds(y.max() > 1)):
        raise TargetError(
            f"expected targets from 0 to 1 for {type(criterion).__name__}, got {float(y.min()):g} to "
            f"{float(y.max()):g}: encode them as in training"
        )


def fits_labels(output, y):
    """Whether targets are laid out as torch's criteria take labels: classes on the second axis of the output."""
    if not isinstance(y, torch.Tensor):
        return False
    return y.shape == output.shape if y.is_floating_point() else tuple(y.shape) == _label_shape(output)


def _check_label_shape(output, y):
    """Refuse labels, or class probabilities, of another shape than torch's criteria take for these outputs."""
    if fits_labels(output, y):
        return
    if y.is_floating_point():
        raise TargetError(
            f"expected integer labels of shape {_label_shape(output)} or class probabilities of shape "
            f"{tuple(output.shape)}, got floating-point targets of shape {tuple(y.shape)}: convert labels with "
            "y.astype('int64')"
        )
    last = output.shape[:-1]
    hint = ""
    if output.ndim > 2 and tuple(y.shape) == tuple(last):
        hint = ": torch's criteria take the classes on the second axis, output.movedim(-1, 1) at the end of forward"
    elif tuple(y.shape) == (*_label_shape(output), 1):
        hint = ": pass y without the last axis, as net.fit takes it, y.ravel() of a column, y.iloc[:, 0] of a DataFrame"
    raise TargetError(
        f"expected labels of shape {_any_rows(_label_shape(output))} for outputs of shape {_any_rows(output.shape)}, "
        f"got {_any_rows(y.shape)}{hint}"
    )


def check_labels(criterion, y, n_classes):
    """Refuse labels out of range and not ignored; torch would raise late, and on a GPU take the process with it."""
    wrong = ((y < 0) | (y >= n_classes)) & (y != criterion.ignore_index)
    if holds(wrong.any()):
        raise TargetError(
            f"expected labels in 0..{n_classes - 1} (the network has {n_classes} outputs), got {y[wrong][0].item()}: "
            "encode them as in training"
        )


def label_weights(criterion, y):
    """The weight of every integer label in the mean that the criterion takes: like ``y``; zero where ignored."""
    valid = y != criterion.ignore_index
    if criterion.weight is None:
        return valid.double()
    return criterion.weight.double()[y.where(valid, 0)] * valid


def broadcast_hint(output, y):
    """The message for targets that broadcast against the outputs, or None where shapes are not the matter."""
    if not isinstance(y, torch.Tensor) or not y.is_floating_point() or y.ndim == output.ndim:
        return None
    if y.numel() != output.numel():  # no shape of y would fit: a number for every pair of vectors, say
        return None
    way = f"y.reshape({', '.join(map(str, (-1, *output.shape[1:])))})"
    return (
        f"the criterion couples rows: outputs of shape {tuple(output.shape)} and y of shape {tuple(y.shape)} broadcast "
        f"against each other, so that every output meets every target. Reshape y with {way}, exactly as in training "
        "(if the network was trained on y of this shape, its training loss was wrong as well: train it again)"
    )


def holds(condition):
    """Whether a tensor condition is true; False inside ``torch.func.vmap``, where values cannot be looked at.

    The training rows have then been checked by ``calibrate``.
    """
    try:
        return bool(condition)
    except RuntimeError:
        return False


def _any_rows(shape):
    """A shape in words, without the rows of the batch, whose number is none that the user chose."""
    return f"({', '.join(['n', *map(str, shape[1:])])}{',' if len(shape) == 1 else ''})"


def _label_shape(output):
    return (len(output), *output.shape[2:])
