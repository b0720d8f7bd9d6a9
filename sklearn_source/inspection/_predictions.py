"""Predictions and losses of a trained network, row by row."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.utils import Bunch

from ..base import NetworkAttribution
from ..loss import Bernoulli, Categorical, resolve_measurement
from ..network import Network, split_pipeline

BATCH_SIZE = 1024


def calibrated(net, X, y):
    """A private copy of a trained net, as a Network that knows the loss of these rows, and the rows as measured."""
    steps, net = split_pipeline(net)
    network = Network.from_net(net)
    rows = network.prepare(steps.transform(X), y, network.measured_draws())
    network.calibrate(rows)
    return network, rows


def require_queries(estimator, X, y):
    """Refuse queries that the estimator's network cannot read, as its ``transform`` does."""
    method = getattr(estimator, "members_", [estimator])[0]
    if isinstance(method, NetworkAttribution):
        with method._exclusive():
            method._query_rows(X, y)


@torch.no_grad()
def predict_rows(net, X, y):
    """Take targets, predictions and losses of rows from a private copy of a net.

    Parameters
    ----------
    net : skorch.NeuralNet, or a pipeline that ends in one
        Trained; not touched.
    X, y
        Rows as for ``net.fit``, with targets.

    Returns
    -------
    result : Bunch
        is_classification : bool
            One class per row.
        target : ndarray of shape (n,) or (n, n_outputs), or None
            Integers for classes; None for rows of several classes: sequences, sets of labels.
        predicted : ndarray of the same shape, or None
        loss : ndarray of shape (n,)
            What ``"neg_loss"`` measures, which self-influence is about.
        probability : ndarray of shape (n,) or None
            Of the own class, where the outputs say.
        loss_is_log : bool
            Whether the loss is minus the logarithm of that, without weights or smoothing.
    """
    network, rows = calibrated(net, X, y)
    measure = resolve_measurement("neg_loss", network)
    batches = []
    for start in range(0, len(rows), BATCH_SIZE):
        x, target = rows.batch(slice(start, start + BATCH_SIZE))
        output = network.forward(x)
        loss = -measure(output, target, x)
        output = network.first(output)
        if network.draws_examples:  # every draw has a target and a prediction of its own
            target = predicted = probability = None
        elif network.is_classification:
            target, predicted, probability = _class_predictions(network, output, target)
        elif isinstance(target, torch.Tensor) and target.numel() == output.numel():
            predicted, probability = output.reshape(len(output), -1), None
            target = target.reshape(len(output), -1)
        else:
            target = predicted = probability = None
        batches.append(
            [None if t is None else t.double().cpu().numpy() for t in (target, predicted, loss, probability)]
        )
    target, predicted, loss, probability = (
        None if any(values is None for values in column) else np.concatenate(column) for column in zip(*batches)
    )
    is_classification = network.is_classification and target is not None
    if is_classification:
        target, predicted = target.astype(np.int64), predicted.astype(np.int64)
    elif target is not None and target.shape[1] == 1:
        target, predicted = target[:, 0], predicted[:, 0]
    loss_is_log = False
    if probability is not None:
        loss_is_log = bool(np.allclose(np.exp(-loss), probability, rtol=1e-3, atol=1e-5))
    return Bunch(
        is_classification=is_classification,
        target=target,
        predicted=predicted,
        loss=loss,
        probability=probability,
        loss_is_log=loss_is_log,
    )


def _class_predictions(network, output, target):
    """Own class, predicted class and the probability of the own class, each (n,); None for what rows do not have.

    Takes outputs and targets of a batch as tensors.
    """
    if isinstance(network.predictive, Bernoulli):
        if output.shape[1:].numel() != 1:
            return None, None, None
        positive, target = network.predictive.probability(output).reshape(-1), (target.reshape(-1) > 0.5).long()
        return target, (positive > network.threshold).long(), torch.where(target > 0, positive, 1 - positive)
    if target.ndim != 1 or target.is_floating_point() or output.ndim != 2 or output.shape[1] < 2:
        return None, None, None
    probability = None
    if isinstance(network.predictive, Categorical):
        probability = network.predictive.probabilities(output).gather(1, target[:, None])[:, 0]
    return target, output.argmax(1), probability
