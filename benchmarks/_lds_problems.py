"""The problems on which methods are compared: rows, queries and the untrained net of each.

Settings are those of the authors of SOURCE (Bae et al. 2024, appendix) where they have the task.
"""

from __future__ import annotations

import copy
import gzip
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import LRScheduler

from sklearn_source import TrajectoryRecorder
from sklearn_source.datasets import TextEncoder, load_concrete_split, load_plays, load_questions, next_tokens
from sklearn_source.modules import MLP, CharTransformer, TextClassifier
from sklearn_source.retraining import Retraining
from sklearn_source.utils._random import seeded


@dataclass(frozen=True)
class Problem:
    """What is trained on what, and how large a truth and a comparison it deserves.

    ``make_net(n_checkpoints)`` gives the untrained net, without a recorder for None. ``adaptive``: its optimizer is.
    """

    name: str
    X_train: Any
    y_train: Any
    X_query: Any
    y_query: Any
    make_net: Callable[[int | None], Any]
    adaptive: bool
    n_subsets: int = 100
    n_repeats: int = 25
    n_networks: int = 5
    measurement: str = "auto"
    second: np.ndarray | None = None  # the rows that a second stage trains on, (n_train,) of bool

    def fit(self, net: Any, rows: np.ndarray | slice = slice(None)) -> Any:
        """Train on some of the rows, in all stages: as many epochs and the rate once more in the second."""
        net.fit(self.X_train[rows], self.y_train[rows])
        if self.second is not None:
            own = self.second[rows]
            net.partial_fit(self.X_train[rows][own], self.y_train[rows][own])
        return net

    def on(self, device: str) -> Problem:
        """Return the same problem with its networks on a device."""
        return replace(self, make_net=lambda n_checkpoints: self.make_net(n_checkpoints).set_params(device=device))


def _maker(kind: type, module: type, further: Sequence[Any] = (), **options: Any) -> Callable[[int | None], Any]:
    def make_net(n_checkpoints: int | None) -> Any:
        recorder = [] if n_checkpoints is None else [TrajectoryRecorder(n_checkpoints=n_checkpoints)]
        callbacks = [*copy.deepcopy(further), *recorder] or None
        return kind(module, train_split=None, verbose=0, iterator_train__shuffle=True, callbacks=callbacks, **options)

    return make_net


def concrete(adaptive: bool, steps: bool = False, stages: bool = False) -> Problem:
    """Return Concrete, 896 rows, and an MLP 128-128-128.

    ``steps``: after two thirds of the epochs the rate falls to a tenth. ``stages``: a second training follows, on the
    mixtures younger than 28 days.
    """
    recipe = (
        {"optimizer": torch.optim.AdamW, "lr": 1e-3, "optimizer__weight_decay": 1e-2}
        if adaptive
        else {"optimizer": torch.optim.SGD, "lr": 0.03, "optimizer__momentum": 0.9, "optimizer__weight_decay": 1e-5}
    )
    split = load_concrete_split()
    falls = [LRScheduler("MultiStepLR", milestones=[13], gamma=0.1)] if steps else []
    make_net = _maker(
        NeuralNetRegressor, MLP, module__n_features=8, batch_size=32, max_epochs=20, further=falls, **recipe
    )
    name = f"concrete-{'steps' if steps else 'stages' if stages else 'adamw' if adaptive else 'sgd'}"
    problem = Problem(name, split.X_train, split.y_train, split.X_query, None, make_net, adaptive)
    if steps:
        return replace(problem, n_repeats=10)
    if not stages:
        return problem
    ages = split.scaler_X.inverse_transform(split.X_train)[:, 7]
    # A smaller truth: networks of several stages are not trained many at once.
    return replace(problem, second=ages < 27.5, n_subsets=60, n_repeats=3)


def load_digits(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the 10,000 digits of MNIST's test set (10000, 784) in [0, 1] and labels, in a fixed random order."""
    images = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())
    X = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 784).astype(np.float32) / 255
    y = np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)
    order = np.random.default_rng(0).permutation(len(X))
    return X[order], y[order]


def mnist(noisy: bool, folder: Path) -> Problem:
    """Return 6144 digits and an MLP 512-256-128.

    ``noisy``: three epochs on labels of which 30 % were drawn at random. The queries have their true labels.
    """
    recipe = (
        {"lr": 0.01, "optimizer__weight_decay": 3e-5, "max_epochs": 3}
        if noisy
        else {"lr": 0.03, "optimizer__weight_decay": 1e-3, "max_epochs": 20}
    )
    X, y = load_digits(folder)
    n_train, n_query = 6144, 100
    y_train, X_query, y_query = y[:n_train].copy(), X[n_train:][:n_query], y[n_train:][:n_query]
    if noisy:
        rng = np.random.default_rng(1)
        drawn = rng.permutation(n_train)[: int(0.3 * n_train)]
        y_train[drawn] = rng.integers(0, 10, len(drawn))
    make_net = _maker(
        NeuralNetClassifier, MLP, module__n_features=784, module__hidden=(512, 256, 128), module__n_outputs=10,
        criterion=torch.nn.CrossEntropyLoss, optimizer=torch.optim.SGD, optimizer__momentum=0.9, batch_size=64,
        **recipe,
    )  # fmt: skip
    name = "mnist-noisy" if noisy else "mnist"
    n_repeats = 10 if noisy else 5
    return Problem(name, X[:n_train], y_train, X_query, y_query, make_net, False, n_repeats=n_repeats)


def questions(adaptive: bool) -> Problem:
    """Return 400 questions, and a transformer of one block that tells what they ask for."""
    recipe = (
        {"optimizer": torch.optim.AdamW, "lr": 2e-3, "optimizer__weight_decay": 1e-2}
        if adaptive
        else {"optimizer": torch.optim.SGD, "lr": 0.05, "optimizer__momentum": 0.9, "optimizer__weight_decay": 1e-3}
    )
    train, test = load_questions(), load_questions(subset="test")
    encoder = TextEncoder(lowercase=True, min_count=2, shapes=True, max_length=16)
    X_train, X_query = encoder.fit_transform(train.data[:400]), encoder.transform(test.data[:60])
    make_net = _maker(
        NeuralNetClassifier, TextClassifier, module__n_tokens=encoder.n_tokens_,
        module__n_classes=len(train.target_names), module__max_length=X_train.shape[1], module__width=32,
        module__n_blocks=1, criterion=torch.nn.CrossEntropyLoss, batch_size=32, max_epochs=12, **recipe,
    )  # fmt: skip
    name = f"questions-{'adamw' if adaptive else 'sgd'}"
    return Problem(name, X_train, train.target[:400], X_query, test.target[:60], make_net, adaptive, 60, 5, 3)


def plays(adaptive: bool) -> Problem:
    """Return 240 short speeches, every seventh of the excerpt a query, and a language model of characters."""
    recipe = (
        {"optimizer": torch.optim.AdamW, "lr": 4e-3, "optimizer__weight_decay": 1e-2}
        if adaptive
        else {"optimizer": torch.optim.SGD, "lr": 0.1, "optimizer__momentum": 0.9, "optimizer__weight_decay": 1e-4}
    )
    texts = np.asarray(load_plays(max_length=64).data)[:560:2]
    encoder = TextEncoder("char", edges=True)
    X, y = next_tokens(encoder.fit_transform(texts))
    asked = np.arange(len(texts)) % 7 == 0
    make_net = _maker(
        NeuralNet, CharTransformer, module__n_tokens=encoder.n_tokens_, module__max_length=X.shape[1],
        module__width=32, module__n_blocks=1, criterion=torch.nn.CrossEntropyLoss, criterion__ignore_index=-100,
        batch_size=16, max_epochs=10, **recipe,
    )  # fmt: skip
    name = f"plays-{'adamw' if adaptive else 'sgd'}"
    return Problem(name, X[~asked], y[~asked], X[asked], y[asked], make_net, adaptive, 40, 3, 2, "neg_loss")


def retrain_in_stages(problem: Problem, random_state: int, equal_steps: bool) -> Retraining:
    """The truth of a training in several stages, network by network; of equal steps, every half in two copies."""
    rng = np.random.default_rng(random_state)
    n, size = len(problem.X_train), (problem.n_subsets, problem.n_repeats)
    masks = np.stack([rng.permutation(n) < n // 2 for _ in range(problem.n_subsets)])
    seeds, outputs = rng.integers(2**31, size=size), np.empty((*size, len(problem.X_query)))
    for subset, repeat in np.ndindex(*size):
        with seeded(100 + int(seeds[subset, repeat])):
            rows = np.flatnonzero(masks[subset])
            net = problem.fit(problem.make_net(None), np.tile(rows, 2) if equal_steps else rows)
        outputs[subset, repeat] = net.predict(problem.X_query).ravel()
    return Retraining(masks, outputs, "prediction", seeds)


# By name: what makes the problem, of the folder with the files of MNIST.
PROBLEMS: dict[str, Callable[[Path], Problem]] = {
    "concrete-sgd": lambda _: concrete(adaptive=False),
    "concrete-adamw": lambda _: concrete(adaptive=True),
    "concrete-steps": lambda _: concrete(adaptive=False, steps=True),
    "concrete-stages": lambda _: concrete(adaptive=False, stages=True),
    "mnist": lambda folder: mnist(noisy=False, folder=folder),
    "mnist-noisy": lambda folder: mnist(noisy=True, folder=folder),
    "questions-sgd": lambda _: questions(adaptive=False),
    "questions-adamw": lambda _: questions(adaptive=True),
    "plays-sgd": lambda _: plays(adaptive=False),
    "plays-adamw": lambda _: plays(adaptive=True),
}
