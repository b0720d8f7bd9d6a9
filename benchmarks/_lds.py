"""Linear datamodeling scores of methods on one problem: what the `lds_*.py` scripts share."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator

from sklearn_source.metrics import linear_datamodeling_score
from sklearn_source.retraining import Retraining, retrain_on_subsets
from sklearn_source.utils._random import seeded

# Name of a method to (checkpoints it needs recorded, what makes it).
Methods = dict[str, tuple[int, Callable[[], BaseEstimator]]]


@dataclass(frozen=True)
class Problem:
    """Rows, queries, and the untrained net: ``make_net(n_checkpoints)``, None for no recorder."""

    name: str
    X_train: Any
    y_train: Any
    X_query: Any
    y_query: Any
    make_net: Callable[[int | None], Any]
    measurement: str = "auto"


def make_truth(problem: Problem, path: Path, n_subsets: int, n_repeats: int) -> Retraining:
    """Load the truth, or train it: half of the rows per subset."""
    if path.exists():
        return Retraining.load(path)
    start = time.perf_counter()
    truth = retrain_on_subsets(
        problem.make_net(None), problem.X_train, problem.y_train, problem.X_query, problem.y_query,
        n_subsets=n_subsets, subset_size=0.5, n_repeats=n_repeats, random_state=0, measurement=problem.measurement,
        cache=path.with_suffix(".parts"), verbose=1,
    )  # fmt: skip
    print(f"retrained {n_subsets * n_repeats} networks in {time.perf_counter() - start:.1f} s")
    truth.save(path)
    return truth


def compare(problem: Problem, truth: Retraining, methods: Methods, n_networks: int = 5) -> None:
    """Score every method against the truth; print a row of the table as each is ready."""
    ceiling = linear_datamodeling_score(np.zeros((truth.n_query, truth.n_train)), truth, n_bootstrap=2).ceiling
    print(f"\n{problem.name}: {truth.n_subsets} subsets x {truth.n_repeats} repeats, noise ceiling {ceiling:.3f}\n")
    print(f"| method | one network | interval | mean of {n_networks} | interval | seconds |")
    print("|---|---|---|---|---|---|", flush=True)
    nets: dict[int, list] = {}
    for name, (n_checkpoints, make) in methods.items():
        if n_checkpoints not in nets:
            nets[n_checkpoints] = [_trained(problem, n_checkpoints, seed) for seed in range(n_networks)]
        start, scores = time.perf_counter(), []
        for net in nets[n_checkpoints]:
            est = make()
            settings = {"random_state": 0, "measurement": problem.measurement}
            est.set_params(**{name: value for name, value in settings.items() if name in est.get_params()})
            scores.append(est.fit(net, problem.X_train, problem.y_train).transform(problem.X_query, problem.y_query))
        seconds = (time.perf_counter() - start) / n_networks
        single = [linear_datamodeling_score(s, truth) for s in scores]
        mean = linear_datamodeling_score(np.mean(scores, axis=0), truth)
        one = np.mean([s.score for s in single])
        (low, high), (mean_low, mean_high) = single[0].interval, mean.interval
        print(
            f"| {name} | {one:.3f} | {low:.3f} to {high:.3f} | {mean.score:.3f} | {mean_low:.3f} to "
            f"{mean_high:.3f} | {seconds:.1f} |",
            flush=True,
        )


def _trained(problem: Problem, n_checkpoints: int, seed: int) -> Any:
    """Return a net trained on all rows, recorded."""
    with seeded(seed):
        return problem.make_net(n_checkpoints).fit(problem.X_train, problem.y_train)


def run(doc: str, stem: str, problems: dict, methods: dict, n_subsets: int, n_repeats: int) -> None:
    """Run from the command line: ``problems[recipe]()`` and ``methods[kind](recipe)``."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=list(problems), default="sgd")
    parser.add_argument("--truth", type=Path, help=f"file of the truth (default: {stem}_RECIPE.npz)")
    parser.add_argument("--methods", choices=list(methods), default=next(iter(methods)))
    parser.add_argument("--n-subsets", type=int, default=n_subsets)
    parser.add_argument("--n-repeats", type=int, default=n_repeats)
    parser.add_argument("--n-networks", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    problem = problems[args.recipe]()
    truth = make_truth(problem, args.truth or Path(f"{stem}_{args.recipe}.npz"), args.n_subsets, args.n_repeats)
    compare(problem, truth, methods[args.methods](args.recipe), args.n_networks)
