"""Which method to believe: the linear datamodeling score of every method on MNIST, with intervals and ceiling.

An MLP 512-256-128 learns 6144 digits, either with their labels and until it has converged ("clean") or for three epochs
with 30 % of the labels drawn at random ("noisy"). 100 random halves of the rows are the truth; the queries are 100
other digits with their true labels. All digits are from the published test set of MNIST, which is small.

    python benchmarks/lds_mnist.py --data FOLDER --recipe clean
    python benchmarks/lds_mnist.py --data FOLDER --recipe noisy --n-repeats 10

The truth is made where the file does not exist, and goes on where it was interrupted; so do the scores.
"""

from __future__ import annotations

import functools
import gzip
from pathlib import Path

import numpy as np
import torch
from _lds import Problem, every_method, run, segment_grid
from skorch import NeuralNetClassifier

from sklearn_source import TrajectoryRecorder
from sklearn_source.datasets import MLP

RECIPES = {
    "clean": {"lr": 0.03, "optimizer__weight_decay": 1e-3, "max_epochs": 20},
    "noisy": {"lr": 0.01, "optimizer__weight_decay": 3e-5, "max_epochs": 3},
}
N_TRAIN, N_QUERY, SHARE_OF_NOISE = 6144, 100, 0.3


def load_digits(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the 10,000 digits (10000, 784) in [0, 1] and their labels, in a fixed random order."""
    images = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())
    X = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 784).astype(np.float32) / 255
    y = np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)
    order = np.random.default_rng(0).permutation(len(X))
    return X[order], y[order]


def make_problem(recipe: str, folder: Path) -> Problem:
    """Return digits and the net of a recipe."""
    X, y = load_digits(folder)
    y_train, X_query, y_query = y[:N_TRAIN].copy(), X[N_TRAIN:][:N_QUERY], y[N_TRAIN:][:N_QUERY]
    if recipe == "noisy":
        rng = np.random.default_rng(1)
        noisy = rng.permutation(N_TRAIN)[: int(SHARE_OF_NOISE * N_TRAIN)]
        y_train[noisy] = rng.integers(0, 10, len(noisy))

    def make_net(n_checkpoints: int | None) -> NeuralNetClassifier:
        recorder = None if n_checkpoints is None else [TrajectoryRecorder(n_checkpoints=n_checkpoints)]
        return NeuralNetClassifier(
            MLP, module__n_features=784, module__hidden=(512, 256, 128), module__n_outputs=10,
            criterion=torch.nn.CrossEntropyLoss, optimizer=torch.optim.SGD, optimizer__momentum=0.9, batch_size=64,
            train_split=None, verbose=0, iterator_train__shuffle=True, callbacks=recorder, **RECIPES[recipe],
        )  # fmt: skip

    return Problem(f"MNIST, {recipe}", X[:N_TRAIN], y_train, X_query, y_query, make_net)


if __name__ == "__main__":
    run(
        __doc__, "lds_mnist", {recipe: functools.partial(make_problem, recipe) for recipe in RECIPES},
        {"basic": every_method, "all": lambda recipe: {**every_method(recipe), **segment_grid()}},
        n_subsets=100, n_repeats=3, data="folder of t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz",
    )  # fmt: skip
