"""Which method to believe: the linear datamodeling score of every method on Concrete, with intervals and ceiling.

An MLP 128-128-128 learns the 896 training rows of Concrete; 100 networks' worth of random halves of the rows, each
retrained ten times, are the truth. Every method scores five networks trained on all rows: "one" is the mean of the five
scores, with the interval of the first network; "mean of 5" the score of the five networks' averaged scores.

    python benchmarks/lds_concrete.py --recipe sgd --truth truth_sgd.npz
    python benchmarks/lds_concrete.py --recipe adamw --truth truth_adamw.npz --methods basic

The truth is made where the file does not exist, and goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.base import BaseEstimator
from skorch import NeuralNetRegressor

from sklearn_source import (
    GradientSimilarity,
    InfluenceFunctions,
    RepresentationSimilarity,
    SourceAttribution,
    TracIn,
    TrajectoryRecorder,
)
from sklearn_source.datasets import MLP, load_concrete_split
from sklearn_source.metrics import linear_datamodeling_score
from sklearn_source.retraining import Retraining, retrain_on_subsets
from sklearn_source.utils._random import seeded

RECIPES = {
    "sgd": {
        "optimizer": torch.optim.SGD, "lr": 0.03, "optimizer__momentum": 0.9, "optimizer__weight_decay": 1e-5,
    },
    "adamw": {"optimizer": torch.optim.AdamW, "lr": 1e-3, "optimizer__weight_decay": 1e-2},
}  # fmt: skip
# Name of a method to (checkpoints it needs recorded, what makes it).
Methods = dict[str, tuple[int, Callable[[], BaseEstimator]]]


def make_net(recipe: str, n_checkpoints: int | None = None) -> NeuralNetRegressor:
    """Return the untrained net of a recipe."""
    recorder = None if n_checkpoints is None else [TrajectoryRecorder(n_checkpoints=n_checkpoints)]
    return NeuralNetRegressor(
        MLP, module__n_features=8, batch_size=32, max_epochs=20, train_split=None, verbose=0,
        iterator_train__shuffle=True, callbacks=recorder, **RECIPES[recipe],
    )  # fmt: skip


def basic_methods(recipe: str) -> Methods:
    """Return one entry for every method of the package, at its defaults."""
    methods: Methods = {
        "gradient similarity, dot": (6, lambda: GradientSimilarity(metric="dot")),
        "gradient similarity, cosine": (6, lambda: GradientSimilarity(metric="cosine")),
        "representation similarity, cosine": (6, lambda: RepresentationSimilarity(metric="cosine")),
        "TracIn, C = 6": (6, TracIn),
        "influence functions, EK-FAC": (6, InfluenceFunctions),
        "SOURCE, L = 3, C = 6": (6, SourceAttribution),
    }
    if recipe == "adamw":
        methods["SOURCE, L = 3, C = 6, adam = paper"] = (6, lambda: SourceAttribution(adam="paper"))
    return methods


def all_methods(recipe: str) -> Methods:
    """Return the basic methods, and SOURCE over segments, checkpoints, quadratures and averaging."""
    methods = basic_methods(recipe)
    for metric in ("dot", "l2"):
        methods[f"representation similarity, {metric}"] = (6, lambda m=metric: RepresentationSimilarity(metric=m))
    for damping in (1e-3, 1e-2, 1e-1):
        name = f"influence functions, EK-FAC, damping {damping:g}"
        methods[name] = (6, lambda d=damping: InfluenceFunctions(damping=d))
    methods["TracIn, C = 24"] = (24, TracIn)
    for C in (6, 12, 24):
        for L in (1, 2, 3, 6):
            for quadrature in ("trapezoid", "right"):
                options = {"n_segments": L, "quadrature": quadrature}
                methods[f"SOURCE, L = {L}, C = {C}, {quadrature}"] = (C, lambda o=options: SourceAttribution(**o))
    options = {"averaging": "parameters"}
    methods["SOURCE, L = 3, C = 6, averaged parameters"] = (6, lambda: SourceAttribution(**options))
    return methods


def make_truth(recipe: str, path: Path, n_subsets: int, n_repeats: int) -> Retraining:
    """Load the truth, or train it."""
    if path.exists():
        return Retraining.load(path)
    split = load_concrete_split()
    start = time.perf_counter()
    truth = retrain_on_subsets(
        make_net(recipe), split.X_train, split.y_train, split.X_query, n_subsets=n_subsets, subset_size=0.5,
        n_repeats=n_repeats, random_state=0, cache=path.with_suffix(".parts"), verbose=1,
    )  # fmt: skip
    print(f"retrained {n_subsets * n_repeats} networks in {time.perf_counter() - start:.1f} s")
    truth.save(path)
    return truth


def compare(recipe: str, truth: Retraining, methods: Methods, n_networks: int = 5) -> list[dict]:
    """Score every method against the truth; print a row of the table as each is ready."""
    split = load_concrete_split()
    ceiling = linear_datamodeling_score(np.zeros((truth.n_query, truth.n_train)), truth, n_bootstrap=2).ceiling
    print(f"\n{recipe}: {truth.n_subsets} subsets x {truth.n_repeats} repeats, noise ceiling {ceiling:.3f}\n")
    print("| method | one network | interval | mean of 5 | interval | seconds |")
    print("|---|---|---|---|---|---|", flush=True)
    nets, rows = {}, []
    for name, (n_checkpoints, make) in methods.items():
        if n_checkpoints not in nets:
            nets[n_checkpoints] = [trained(recipe, n_checkpoints, seed) for seed in range(n_networks)]
        start, scores = time.perf_counter(), []
        for net in nets[n_checkpoints]:
            est = make()
            if "random_state" in est.get_params():
                est.set_params(random_state=0)
            scores.append(est.fit(net, split.X_train, split.y_train).transform(split.X_query))
        seconds = (time.perf_counter() - start) / n_networks
        single = [linear_datamodeling_score(s, truth) for s in scores]
        mean = linear_datamodeling_score(np.mean(scores, axis=0), truth)
        rows.append({"method": name, "one": np.mean([s.score for s in single]), "mean": mean.score})
        (low, high), (mean_low, mean_high) = single[0].interval, mean.interval
        print(
            f"| {name} | {rows[-1]['one']:.3f} | {low:.3f} to {high:.3f} | {mean.score:.3f} | {mean_low:.3f} to "
            f"{mean_high:.3f} | {seconds:.1f} |",
            flush=True,
        )
    return rows


def trained(recipe: str, n_checkpoints: int, seed: int) -> NeuralNetRegressor:
    """Return a net trained on all rows, recorded."""
    split = load_concrete_split()
    with seeded(seed):
        return make_net(recipe, n_checkpoints).fit(split.X_train, split.y_train)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=list(RECIPES), default="sgd")
    parser.add_argument("--truth", type=Path, help="file of the truth (default: lds_concrete_RECIPE.npz)")
    parser.add_argument("--methods", choices=["basic", "all"], default="basic")
    parser.add_argument("--n-subsets", type=int, default=100)
    parser.add_argument("--n-repeats", type=int, default=10)
    parser.add_argument("--n-networks", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    path = args.truth or Path(f"lds_concrete_{args.recipe}.npz")
    truth = make_truth(args.recipe, path, args.n_subsets, args.n_repeats)
    methods = {"basic": basic_methods, "all": all_methods}[args.methods](args.recipe)
    compare(args.recipe, truth, methods, args.n_networks)


if __name__ == "__main__":
    main()
