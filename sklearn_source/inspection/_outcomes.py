"""Losses and errors of a network on held-out rows, as they are and with a measurement that moved."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.utils import Bunch

from ..loss import Bernoulli, Categorical, resolve_measurement
from ._predictions import BATCH_SIZE, calibrated


@torch.no_grad()
def outcomes(net, X, y, measurement=None, change=None):
    """Losses of rows and which of them a net gets wrong, from a private copy of it.

    Parameters
    ----------
    net : skorch.NeuralNet, or a pipeline that ends in one
        Trained; not touched.
    X, y
        Rows and their targets, as for ``net.fit``.
    measurement : str, optional
        Of which every row has a ``change``: ``"log_odds"``, ``"prediction"`` or ``"neg_loss"``.
    change : ndarray (n,), optional
        Log-odds are moved by moving the logit of the row's class against all others.

    Returns
    -------
    result : Bunch
        loss : ndarray (n,) or None
            What ``"neg_loss"`` measures; None where outputs cannot be moved so.
        wrong : ndarray of bool (n,) or None
            Whether another class is predicted than the row's; None where a row has not one class, or its change does
            not say.
    """
    network, rows = calibrated(net, X, y)
    measure = resolve_measurement("neg_loss", network)
    losses, wrong = [], []
    for start in range(0, len(rows), BATCH_SIZE):
        some = slice(start, start + BATCH_SIZE)
        x, target = rows.batch(some)
        output, own = network.forward(x), None if change is None else torch.as_tensor(change[some])
        loss_moves = own is not None and measurement == "neg_loss"
        if own is not None and not loss_moves:
            output = _moved(network, output, target, own.to(output), measurement)
        losses.append(None if output is None else -measure(output, target, x))
        if loss_moves:
            losses[-1] = losses[-1] - own.to(losses[-1])
        wrong.append(None if output is None or loss_moves else _wrong(network, output, target))
    return Bunch(loss=_joined(losses), wrong=_joined(wrong))


@torch.no_grad()
def losses_at(net, X, y, predictions):
    """Losses of rows (n,) by a net's criterion, were the predictions of its one output others."""
    network, rows = calibrated(net, X, y)
    measure, losses = resolve_measurement("neg_loss", network), []
    for start in range(0, len(rows), BATCH_SIZE):
        some = slice(start, start + BATCH_SIZE)
        x, target = rows.batch(some)
        output = network.first(network.forward(x))
        own = torch.as_tensor(predictions[some]).to(output).reshape(output.shape)
        losses.append(-measure(own, target, x))
    return _joined(losses)


@torch.no_grad()
def has_probabilities(net, X, y):
    """Whether a classifier's outputs are probabilities of its classes, not logits or logarithms."""
    network, rows = calibrated(net, X, y)
    output, predictive = network.first(network.forward(rows.batch(slice(0, 8))[0])), network.predictive
    if isinstance(predictive, Bernoulli):
        return bool((predictive.probability(output) == output).all())
    return isinstance(predictive, Categorical) and bool((predictive.probabilities(output) == output).all())


def _moved(network, output, target, change, measurement):
    """Outputs whose measurement is another by ``change`` (n,); None where that says nothing of the outputs."""
    output, predictive = network.first(output), network.predictive
    if measurement == "prediction" and output.shape[1:].numel() == 1:
        return output + change.reshape(output.shape)
    if measurement != "log_odds" or not _has_one_class(network, output, target):
        return None
    if isinstance(predictive, Bernoulli):
        sign = torch.where(target.reshape(output.shape) > 0.5, 1.0, -1.0)
        odds = torch.logit(predictive.probability(output).double())
        moved = odds + sign * change.reshape(output.shape)
        is_probability = bool((predictive.probability(output) == output).all())
        return (moved.sigmoid() if is_probability else moved).to(output.dtype)
    free = predictive.to_free(output)
    return predictive.from_free(free.scatter_add(1, target[:, None], change[:, None].to(free)))


def _has_one_class(network, output, target):
    """Whether every row has one class of several, or of two."""
    if isinstance(network.predictive, Bernoulli):
        return output.shape[1:].numel() == 1
    integers = target is not None and target.ndim == 1 and not target.is_floating_point()
    return isinstance(network.predictive, Categorical) and integers and output.ndim == 2 and output.shape[1] > 1


def _wrong(network, output, target):
    output = network.first(output)
    if not _has_one_class(network, output, target):
        return None
    if isinstance(network.predictive, Bernoulli):
        positive = network.predictive.probability(output).reshape(-1) > network.threshold
        return positive != (target.reshape(-1) > 0.5)
    return output.argmax(1) != target


def _joined(parts):
    return None if any(part is None for part in parts) else np.concatenate([part.cpu().numpy() for part in parts])
