"""The tangent kernel of a trained network: how alike rows are to it, and what their targets ask for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..base import RowGradients, make_projection
from ..loss import Bernoulli, Categorical, Gaussian, Laplace
from ..network import Network, split_pipeline

_WIDTH = 16384  # numbers that are kept of a gradient; noise of inner products is a 128th of the lengths
_MOST_DIRECTIONS = 16  # of the outputs; more are mixed by random signs


@dataclass(frozen=True)
class TangentKernel:
    """What a network knows of rows, to first order in its weights.

    Attributes
    ----------
    training : ndarray (n_train, n_train)
        ``mean_c <grad f_c(i), grad f_c(j)> / n_train`` over the outputs c.
    queries : ndarray (n_query, n_train)
    targets : ndarray (n_train, n_outputs)
        Numbers, or 1 for the own class and 0 for the others.
    errors : ndarray (n_query, n_outputs)
        Targets less predictions (probabilities).
    """

    training: np.ndarray
    queries: np.ndarray
    targets: np.ndarray
    errors: np.ndarray


def tangent_kernel(net, X_train, y_train, X_query, y_query):
    """Take the kernel of a trained network at its weights.

    Parameters
    ----------
    net : skorch.NeuralNet, or a pipeline that ends in one
    X_train, y_train, X_query, y_query
        Rows as for ``net.fit``.

    Returns
    -------
    kernel : TangentKernel or None
        None where a row has not one class or numbers as targets, or its loss is of another kind.

    Notes
    -----
    Jacot, Gabriel, Hongler (2018), "Neural Tangent Kernel", NeurIPS. Gradients of networks of more than 16,384
    parameters are projected, those of more than 16 outputs mixed (of logits, where outputs are probabilities). Costs a
    backward pass for each row and output.
    """
    steps, net = split_pipeline(net)
    network = Network.from_net(net)
    draws = network.measured_draws()
    training = network.prepare(steps.transform(X_train), y_train, draws)
    queries = network.prepare(steps.transform(X_query), y_query, draws)
    network.calibrate(training)
    if network.draws_examples or not isinstance(network.predictive, Bernoulli | Categorical | Gaussian | Laplace):
        return None
    gradients = RowGradients(network, training)
    told = [_told(network, gradients, rows) for rows in (training, queries)]
    if any(one is None for one in told) or told[0][0].shape[1] != told[1][0].shape[1]:
        return None
    (targets, _), (truth, predicted) = told
    n_outputs, n_train = predicted.shape[1], len(training)
    directions = np.eye(n_outputs)
    if n_outputs > _MOST_DIRECTIONS:
        directions = np.random.RandomState(0).choice([-1.0, 1.0], (_MOST_DIRECTIONS, n_outputs)) / _MOST_DIRECTIONS**0.5
    project = make_projection("sjlt", [block.shape for block in gradients.blocks], _WIDTH, (0, 0))
    own = np.zeros((n_train, n_train), dtype=np.float32)
    other = np.zeros((len(queries), n_train), dtype=np.float32)
    for direction in directions:
        features = _features(gradients, training, direction, project)
        own += features @ features.T
        other += _features(gradients, queries, direction, project) @ features.T
    scale = 1.0 / (n_outputs * n_train)
    kernel = TangentKernel(own.astype(np.float64) * scale, other.astype(np.float64) * scale, targets, truth - predicted)
    return kernel if all(np.isfinite(part).all() for part in vars(kernel).values()) else None


def _batches(gradients, rows):
    for start in range(0, len(rows), gradients.batch_size):
        yield rows.batch(slice(start, start + gradients.batch_size))


@torch.no_grad()
def _told(network, gradients, rows):
    """Targets and predictions (n, n_outputs) as numbers; None where they are not of one form."""
    targets, predictions = [], []
    for x, y in _batches(gradients, rows):
        output = network.first(network.forward(x))
        if not isinstance(y, torch.Tensor) or output.ndim > 2:
            return None
        output = output.reshape(len(output), -1)
        if isinstance(network.predictive, Categorical):
            if y.ndim != 1 or y.is_floating_point() or output.shape[1] < 2 or y.min() < 0 or y.max() >= output.shape[1]:
                return None
            predicted = network.predictive.probabilities(output)
            y = torch.nn.functional.one_hot(y, output.shape[1])
        else:
            if y.numel() != output.numel():
                return None
            predicted = output
            if isinstance(network.predictive, Bernoulli):
                predicted, y = network.predictive.probability(output), y > 0.5
        targets.append(y.reshape(output.shape).double().cpu().numpy())
        predictions.append(predicted.reshape(output.shape).double().cpu().numpy())
    return np.concatenate(targets), np.concatenate(predictions)


def _features(gradients, rows, direction, project):
    """Gradients of a mixture of the outputs (n, width)."""
    network, parts = gradients.network, []
    with gradients.engine.attached():
        gradients.load(gradients.trained)
        for x, _ in _batches(gradients, rows):
            capture = gradients.engine.capture(x, network.forward)
            with torch.enable_grad():
                output = capture.output.detach().requires_grad_()
                free = network.predictive.to_free(output).reshape(len(output), -1)
                mixed = (free * torch.as_tensor(direction).to(free)).sum()
                (cotangent,) = torch.autograd.grad(mixed, output)
            parts.append(project(capture.pull(cotangent)).float().cpu().numpy())
    return np.concatenate(parts)
