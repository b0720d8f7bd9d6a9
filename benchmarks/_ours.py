"""This package's side of the speed benchmark, driven through its public estimators.

`bench_vs_kronfluence.py` does the timing. `prepare` is not timed; everything else is what a user would call.
"""

from __future__ import annotations

from typing import Any

import torch
from _tasks import Task
from skorch import NeuralNetClassifier

from sklearn_source import InfluenceFunctions, SourceAttribution, Trajectory
from sklearn_source.curvature import EKFAC


def prepare(task: Task) -> Any:
    """Return the trained network as the package takes it."""
    net = NeuralNetClassifier(
        task.build,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        optimizer__momentum=task.momentum,
        lr=task.learning_rate,
        batch_size=task.batch_size,
        train_split=None,
        verbose=0,
        device=task.device,
    ).initialize()
    net.module_.load_state_dict(task.checkpoints[-1][1])
    return net


def our_factors(task: Task, prepared: Any, tol: float | None = None) -> Any:
    """Fit the factors; return what `our_scores` needs."""
    return InfluenceFunctions(
        curvature=EKFAC(fisher="empirical", coupling=None),
        damping="mean_eigenvalue",
        layers=list(task.layers),
        tol=tol,
    ).fit(prepared, task.X_train, task.y_train)


def our_scores(task: Task, state: Any) -> Any:
    """Return the influence of every training row on every query, (n_query, n_train)."""
    return state.transform(task.X_query, task.y_query)


def our_source(task: Task, prepared: Any, tol: float | None = None) -> Any:
    """Fit and transform a whole SOURCE with the checkpoints of the task; return (n_query, n_train)."""
    steps = [step for step, _ in task.checkpoints]
    trajectory = Trajectory.from_checkpoints(
        [state for _, state in task.checkpoints],
        steps,
        task.learning_rate,
        module=prepared.module_,
        momentum=task.momentum,
        n_rows=len(task.X_train),
    )
    curvature = EKFAC(fisher="empirical", coupling=None)
    est = SourceAttribution(
        n_segments=3, curvature=curvature, layers=list(task.layers), trajectory=trajectory, tol=tol
    ).fit(prepared, task.X_train, task.y_train)
    return est.transform(task.X_query, task.y_query)
