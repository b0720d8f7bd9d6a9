"""The training loss of rows as a function of their own measurement."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ._measurement import require_derivative
from ._predictive import Predictive


@dataclass(frozen=True)
class AlongMeasurement:
    """Rows' losses followed along what is measured of them.

    Attributes
    ----------
    values : Tensor (B,)
        The measurement f of every row.
    cotangent : Tensor like the outputs
        Its gradient in the row's output.
    slope, curvature : Tensor (B,)
        First and second derivative of the row's loss by f: ``-(1 - p)`` and ``p (1 - p)`` for cross-entropy and
        log-odds. Zero where f stands still.
    """

    values: torch.Tensor
    cotangent: torch.Tensor
    slope: torch.Tensor
    curvature: torch.Tensor


def along_measurement(row_loss, measure, output, y, x=None):
    """The losses of a batch along the measurement of its rows with their own targets.

    The output (of probabilities the logits) moves along the gradient of f, as fast as f grows by one. Where the loss
    depends on the output through f alone (one output; the own class's log-odds under cross-entropy), the way makes no
    difference; else the slope is the least-squares one, ``<grad l, grad f> / |grad f|^2``: of the log-odds of a
    sequence a weighted mean of ``p - 1`` over its tokens, of one output among several the partial derivative.

    Parameters
    ----------
    row_loss : RowLoss
    measure : Measurement
    output : Tensor (B, ...)
    y : targets of the batch
    x : batch, optional

    Returns
    -------
    AlongMeasurement
        Detached.
    """
    predictive = Predictive() if row_loss.batch_loss.outputs.are_joined else row_loss.predictive
    output = output.detach()
    target = measure.target(output, y, x)
    with torch.enable_grad():
        leaf = output.clone().requires_grad_()
        values = measure(leaf, target, x)
        require_derivative(measure, values, leaf)
        cotangent = _gradient(values, leaf)
        free = predictive.to_free(output).requires_grad_()
        moved = predictive.from_free(free)
        way = _gradient(measure(moved, target, x), free)
        square = _inner(way, way)
        square = square.where(square > 0, 1.0)
        slope = _inner(_gradient(row_loss(moved, y, x), free), way) / square
        curvature = _inner(_gradient(slope, free), way) / square
    return AlongMeasurement(values.detach(), cotangent.detach(), slope.detach(), curvature.detach())


def _gradient(values, leaf):
    """Of the sum of the rows' values, zero where they do not depend on ``leaf``."""
    if not values.requires_grad:
        return torch.zeros_like(leaf)
    found = torch.autograd.grad(values.sum(), leaf, create_graph=True, allow_unused=True)[0]
    return torch.zeros_like(leaf) if found is None else found


def _inner(a, b):
    return (a * b).flatten(1).sum(1) if a.ndim > 1 else a * b
