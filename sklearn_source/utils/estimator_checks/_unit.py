"""The unit and the sign of scores, against training again."""

from __future__ import annotations

import copy
import functools

import numpy as np
import torch
from skorch import NeuralNetRegressor

from ...modules import MLP
from ...network import train_to_the_end
from ...trajectory import TrajectoryRecorder
from .._random import seeded
from ._tools import prepared, require

_LR, _STEPS, _STEP = 0.02, 25, 1e-4


def check_attribution_unit(name, estimator, case=None, *, factor=2.5):
    """Scores estimate what having a row changed: sign and size against retraining a linear model.

    Full-batch gradient descent on a linear regression with white inputs, stopped where learning rate times steps times
    curvature is one. There every approximation is right up to a factor of two: a first-order one counts what later
    steps took back, an influence function counts what training had yet to do. A forgotten 1/N, a summed loss, or a
    flipped sign is not.

    Parameters
    ----------
    factor : float
        The slope of the scores on the truth lies between its inverse and itself.
    """
    X, y, X_query = _table()
    net, weights = copy.deepcopy(_trained_linear_net())
    scores = prepared(estimator).fit(net, X, y).transform(X_query).astype(np.float64)
    for what, removed in (("reweighting it a little", _STEP), ("leaving it out", 1.0)):
        truth = np.empty_like(scores)
        base = _predictions(weights, X, y, X_query, np.ones(len(X)))
        for m in range(len(X)):
            row_weights = np.ones(len(X))
            row_weights[m] -= removed
            truth[:, m] = (base - _predictions(weights, X, y, X_query, row_weights)) / removed
        large = np.abs(truth) > 0.1 * np.abs(truth).max()
        agree = np.mean(np.sign(scores[large]) == np.sign(truth[large]))
        require(
            agree >= 0.9,
            f"{name}: only {agree:.0%} of the scores have the sign of the effect of a training row, measured by "
            f"{what}: positive must mean that having the row raised the measurement",
        )
        slope = (scores * truth).sum() / (truth**2).sum()
        require(
            1 / factor <= slope <= factor,
            f"{name}: scores are {slope:.3g} times the effect of a training row, measured by {what}; a method with a "
            f"unit stays within a factor of {factor:g} (has_unit = False says that a method gives an order only)",
        )


def _table():
    """Training rows with white inputs, their targets, and queries."""
    rng = np.random.RandomState(0)
    Z = rng.normal(size=(24, 3))
    U = np.linalg.svd(Z - Z.mean(0), full_matrices=False)[0]
    X = U * np.sqrt(len(U))  # with a column of ones: X^T X = N I
    y = X @ [1.0, -2.0, 0.5] + 1.0 + 0.7 * rng.normal(size=len(X))
    return X.astype(np.float32), y.astype(np.float32)[:, None], rng.normal(size=(6, 3)).astype(np.float32)


@functools.cache
def _trained_linear_net():
    """A linear net after some steps of gradient descent, and its initial weights, bias last: not to be written."""
    X, y, _ = _table()
    net = NeuralNetRegressor(
        MLP,
        module__n_features=X.shape[1],
        module__hidden=(),
        optimizer=torch.optim.SGD,
        lr=_LR,
        batch_size=-1,
        max_epochs=_STEPS,
        train_split=None,
        verbose=0,
        callbacks=[TrajectoryRecorder(n_checkpoints=6)],
    )
    with seeded(0):
        net.initialize()
        initial = torch.cat([p.detach().reshape(-1) for p in net.module_.parameters()]).double().numpy()
    train_to_the_end(net.partial_fit, X, y)
    return net, initial


def _predictions(weights, X, y, X_query, row_weights):
    """Gradient descent on the mean of the weighted rows' squared errors (1/N kept), in float64."""
    A = np.column_stack([X, np.ones(len(X))]).astype(np.float64)
    for _ in range(_STEPS):
        weights = weights - _LR * 2 / len(A) * A.T @ (row_weights * (A @ weights - y[:, 0]))
    return np.column_stack([X_query, np.ones(len(X_query))]) @ weights
