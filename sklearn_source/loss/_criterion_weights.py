"""What torch's criteria multiply the loss of every element by: class weights, smoothing, ignored labels."""

from __future__ import annotations

import torch


def criterion_weights(criterion, output, y):
    """The factor of the textbook Hessian of every element, before any reduction.

    Parameters
    ----------
    criterion : torch.nn.Module
        CrossEntropyLoss, NLLLoss, BCEWithLogitsLoss, BCELoss, or one without weights.
    output, y : Tensor (B, ...)

    Returns
    -------
    Tensor (B, *positions) for categorical outputs, else like ``output``
    """
    if isinstance(criterion, (torch.nn.CrossEntropyLoss, torch.nn.NLLLoss)):
        return _of_classes(criterion, output, y)
    weights = torch.ones_like(output)
    if isinstance(criterion, torch.nn.BCEWithLogitsLoss):
        if criterion.pos_weight is not None:
            weights = weights * (1 + (criterion.pos_weight - 1) * y)
    if isinstance(criterion, (torch.nn.BCEWithLogitsLoss, torch.nn.BCELoss)) and criterion.weight is not None:
        weights = weights * criterion.weight
    return weights


def _of_classes(criterion, output, y):
    """Of labels, or class probabilities, under a criterion over classes on the second axis: (B, *positions)."""
    smoothing, n_classes = getattr(criterion, "label_smoothing", 0.0), output.shape[1]
    weight = torch.ones(n_classes, device=output.device) if criterion.weight is None else criterion.weight
    weight = weight.to(output.dtype)
    if y.is_floating_point():
        smooth = (1 - smoothing) * y + smoothing / n_classes
        return (smooth * weight.reshape(1, -1, *[1] * (y.ndim - 2))).sum(1)
    valid = y != criterion.ignore_index
    return ((1 - smoothing) * weight[y.where(valid, 0)] + smoothing * weight.mean()) * valid
