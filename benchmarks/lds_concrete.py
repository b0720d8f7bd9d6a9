"""Which method to believe: the linear datamodeling score of every method on Concrete, with intervals and ceiling.

An MLP 128-128-128 learns the 896 training rows of Concrete; 100 networks' worth of random halves of the rows, each
retrained ten times, are the truth. Every method scores five networks trained on all rows: "one" is the mean of the five
scores, with the interval of the first network; "mean of 5" the score of the five networks' averaged scores.

    python benchmarks/lds_concrete.py --recipe sgd --truth truth_sgd.npz
    python benchmarks/lds_concrete.py --recipe adamw --truth truth_adamw.npz --methods basic

The truth is made where the file does not exist, and goes on where it was interrupted.
"""

from __future__ import annotations

import functools

import torch
from _lds import Methods, Problem, every_method, run, segment_grid
from skorch import NeuralNetRegressor

from sklearn_source import InfluenceFunctions, TracIn, TrajectoryRecorder
from sklearn_source.datasets import MLP, load_concrete_split

RECIPES = {
    "sgd": {
        "optimizer": torch.optim.SGD, "lr": 0.03, "optimizer__momentum": 0.9, "optimizer__weight_decay": 1e-5,
    },
    "adamw": {"optimizer": torch.optim.AdamW, "lr": 1e-3, "optimizer__weight_decay": 1e-2},
}  # fmt: skip


def make_problem(recipe: str) -> Problem:
    """Return Concrete and the net of a recipe."""

    def make_net(n_checkpoints: int | None) -> NeuralNetRegressor:
        recorder = None if n_checkpoints is None else [TrajectoryRecorder(n_checkpoints=n_checkpoints)]
        return NeuralNetRegressor(
            MLP, module__n_features=8, batch_size=32, max_epochs=20, train_split=None, verbose=0,
            iterator_train__shuffle=True, callbacks=recorder, **RECIPES[recipe],
        )  # fmt: skip

    split = load_concrete_split()
    return Problem(recipe, split.X_train, split.y_train, split.X_query, None, make_net)


def all_methods(recipe: str) -> Methods:
    """Return every method, influence functions with damping, TracIn with more checkpoints, and SOURCE's settings."""
    methods = every_method(recipe)
    for damping in (1e-3, 1e-2, 1e-1):
        name = f"influence functions, damping {damping:g}"
        methods[name] = (6, lambda d=damping: InfluenceFunctions(damping=d))
    methods["TracIn, C = 24"] = (24, TracIn)
    return {**methods, **segment_grid()}


if __name__ == "__main__":
    problems = {recipe: functools.partial(make_problem, recipe) for recipe in RECIPES}
    run(__doc__, "lds_concrete", problems, {"basic": every_method, "all": all_methods}, n_subsets=100, n_repeats=10)
