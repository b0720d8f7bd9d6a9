"""Small nets and rows for retraining."""

from __future__ import annotations

import numpy as np
import torch
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklearn_source.modules import MLP
from sklearn_source.retraining._engines import JoblibEngine, VectorizedEngine, choose
from sklearn_source.retraining._masks import draw_masks
from sklearn_source.retraining._plan import draw_seeds, make_units
from sklearn_source.retraining._task import make_task

N_ROWS, N_QUERIES, N_FEATURES = 45, 6, 4


def rows(kind="regression", dtype=np.float32, n_rows=N_ROWS):
    """X, y, X_query."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_rows + N_QUERIES, N_FEATURES)).astype(dtype)
    target = X @ rng.normal(size=N_FEATURES) + 0.5 * np.sin(3 * X[:, 0]) + 0.2 * rng.normal(size=len(X))
    y = {
        "regression": target[:, None].astype(dtype),
        "classes": np.digitize(target, [-1, 1]).astype(np.int64),
        "binary": (target > 0).astype(dtype),
    }[kind]
    return X[:n_rows], y[:n_rows], X[n_rows:]


def make_net(cls=NeuralNetRegressor, module=MLP, **options):
    defaults = {
        "optimizer": torch.optim.SGD, "lr": 0.05, "batch_size": 8, "max_epochs": 4, "train_split": None, "verbose": 0,
        "iterator_train__shuffle": True,
    }  # fmt: skip
    if module is MLP:
        defaults["module__hidden"] = (8, 8)
    return cls(module, **{**defaults, **options})


def classifier(**options):
    """Logits and cross-entropy."""
    return make_net(NeuralNetClassifier, module__n_outputs=3, criterion=nn.CrossEntropyLoss, **options)


def binary(**options):
    return make_net(NeuralNetBinaryClassifier, module__squeeze=True, **options)


def double_mlp(**options):
    """An MLP in float64."""
    return MLP(n_features=N_FEATURES, hidden=(8, 8), activation=nn.Tanh, **options).double()


def task_of(net, X, y, X_query, *, n_subsets=3, n_repeats=2, paired=False, renormalize=True, masks=None, **options):
    """A task and its units."""
    options = {"measurement": "prediction" if y.dtype.kind == "f" and y.ndim == 2 else "log_odds", **options}
    y_query = options.pop("y_query", None)
    options.setdefault("output", None)
    task = make_task(net, X, y, X_query, y_query, paired=paired, renormalize=renormalize, **options)
    masks = draw_masks(len(X), n_subsets, len(X) // 2, 0) if masks is None else masks
    return task, make_units(masks, draw_seeds(len(masks), n_repeats, 0, paired))


def both(task, units):
    """Final (parameters, buffers) of every unit by skorch clones and by stacked training."""
    return JoblibEngine(task).states(units, task.plan), VectorizedEngine(task).states(units, task.plan)


def assert_same_states(one, two, tolerance=1e-5):
    for (parameters, buffers), (others, other_buffers) in zip(one, two, strict=True):
        for mine, theirs in ((parameters, others), (buffers, other_buffers)):
            assert list(mine) == list(theirs)
            for name, value in mine.items():
                torch.testing.assert_close(theirs[name], value, atol=tolerance, rtol=tolerance, msg=name)


def chosen(task, units, engine="auto"):
    """Name of the engine, and why."""
    found, reason = choose(engine, task, units, None)
    return found.name, reason
