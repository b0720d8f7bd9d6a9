"""The size of scores on a network of two layers, against the derivative of the training itself."""

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
from ._cases import DoubleMLP
from ._tools import prepared, require

_LR, _STEPS, _STEP = 0.1, 50, 1e-3
_FACTOR = 4 / 3
_MODULE = {"n_features": 3, "hidden": (8,), "activation": torch.nn.Tanh}


def check_attribution_size(name, estimator, case=None):
    """Sums of scores over groups are as large as the effects of the groups, on a network of two layers.

    Full-batch gradient descent until little moves, learning rate times steps times curvature far above one. The exact
    Gauss-Newton matrix stands at 1.0 there, also projected onto one direction a layer. Curvature that takes the layers
    for independent has every layer correct the whole residual, and stands at 1.6 to 2.5; a first-order method counts
    what later steps took back, and stands above 10.
    """
    net, X, y, X_query, groups, effects = copy.deepcopy(_measured())
    scores = prepared(estimator).fit(net, X, y).transform(X_query).astype(np.float64)
    sums = scores[:, groups].sum(axis=2)
    slope = (sums * effects).sum() / (effects**2).sum()
    require(
        1 / _FACTOR <= slope <= _FACTOR,
        f"{name}: scores of groups of rows are {slope:.3g} times the effect of the groups, measured by weighting their "
        f"loss in the training of a network of two layers; expected within a factor of {_FACTOR:.2f}: curvature that "
        "takes layers for independent is too large, as every layer corrects the whole residual",
    )


@functools.cache
def _measured():
    """A trained net, its rows, queries, groups of rows, and the effects of these (n_query, n_groups): to be copied.

    The same for every estimator, and most of what the check costs.
    """
    rng = np.random.RandomState(0)
    X = rng.normal(size=(24, 3)).astype(np.float32)
    y = (X @ [1.0, -1.0, 0.5] + 0.5 * rng.normal(size=len(X))).astype(np.float32)[:, None]
    X_query = rng.normal(size=(6, 3)).astype(np.float32)
    groups = np.array([rng.permutation(len(X))[:4] for _ in range(8)])
    net, initial = _trained_net(X, y)
    effects = np.stack([_effect(initial, X, y, X_query, rows) for rows in groups], axis=1)
    return net, X, y, X_query, groups, effects


def _trained_net(X, y):
    """A net of two layers after gradient descent on all rows, and the state it started from."""
    net = NeuralNetRegressor(
        MLP,
        **{f"module__{key}": value for key, value in _MODULE.items()},
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
    initial = {key: value.clone() for key, value in net.module_.state_dict().items()}
    train_to_the_end(net.partial_fit, X, y)
    return net, initial


def _effect(initial, X, y, X_query, rows):
    """Derivative of predictions by the weight of some rows in the loss, by two trainings in float64: (n_query,)."""
    X, y, X_query = (torch.as_tensor(values, dtype=torch.float64) for values in (X, y, X_query))
    predictions = []
    for step in (_STEP, -_STEP):
        weights = torch.full(y.shape, 1 / len(y), dtype=torch.float64)  # 1/N kept: what scores are the derivative of
        weights[rows] *= 1 + step
        module = DoubleMLP(**_MODULE)
        module.load_state_dict(initial)
        parameters = list(module.parameters())
        for _ in range(_STEPS):
            gradients = torch.autograd.grad((weights * (module(X) - y) ** 2).sum(), parameters)
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients):
                    parameter -= _LR * gradient
        with torch.no_grad():
            predictions.append(module(X_query)[:, 0].numpy())
    return (predictions[0] - predictions[1]) / (2 * _STEP)
