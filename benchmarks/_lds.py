"""Linear datamodeling scores of methods on one problem: what the `lds_*.py` scripts share."""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator

from sklearn_source import GradientSimilarity, InfluenceFunctions, RepresentationSimilarity, SourceAttribution, TracIn
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


def every_method(recipe: str) -> Methods:
    """Return one entry for every method of the package, at its defaults but for what makes it another method."""
    methods: Methods = {
        f"gradient similarity, {m}": (6, lambda m=m: GradientSimilarity(metric=m)) for m in ("dot", "cosine")
    }
    for m in ("dot", "cosine", "l2"):
        methods[f"representation similarity, {m}"] = (6, lambda m=m: RepresentationSimilarity(metric=m))
    methods["TracIn, C = 6"] = (6, TracIn)
    for basis in ("kfac", "shampoo"):
        methods[f"influence functions, {basis} basis"] = (6, lambda b=basis: InfluenceFunctions(basis=b))
    methods["SOURCE, L = 3, C = 6"] = (6, SourceAttribution)
    if recipe == "adamw":
        methods["SOURCE, L = 3, C = 6, adam = paper"] = (6, lambda: SourceAttribution(adam="paper"))
    else:
        methods["SOURCE, L = 3, C = 6, shampoo basis"] = (6, lambda: SourceAttribution(basis="shampoo"))
    methods["SOURCE, L = 3, C = 6, averaged parameters"] = (6, lambda: SourceAttribution(averaging="parameters"))
    return methods


def segment_grid(**options: Any) -> Methods:
    """Return SOURCE over numbers of segments and checkpoints and both quadratures."""
    return {
        f"SOURCE, L = {L}, C = {C}, {quadrature}": (
            C,
            functools.partial(SourceAttribution, n_segments=L, quadrature=quadrature, **options),
        )
        for C in (6, 12, 24)
        for L in (1, 2, 3, 6)
        for quadrature in ("trapezoid", "right")
    }


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


def compare(problem: Problem, truth: Retraining, methods: Methods, folder: Path, n_networks: int = 5) -> None:
    """Score every method against the truth; print a row of the table as each is ready.

    The scores of every network are kept in ``folder``, so that an interrupted comparison goes on, and curvature
    statistics that several methods share are fitted once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ceiling = linear_datamodeling_score(np.zeros((truth.n_query, truth.n_train)), truth, n_bootstrap=2).ceiling
    print(f"\n{problem.name}: {truth.n_subsets} subsets x {truth.n_repeats} repeats, noise ceiling {ceiling:.3f}\n")
    print(f"| method | one network | interval | mean of {n_networks} | interval | seconds |")
    print("|---|---|---|---|---|---|", flush=True)
    nets: dict[tuple[int, int], Any] = {}
    for name, (n_checkpoints, make) in methods.items():
        scores, seconds = [], []
        for seed in range(n_networks):
            kept = folder / f"{name.replace(' ', '_').replace('/', '-')}_{seed}.npz"
            if not kept.exists():
                if (n_checkpoints, seed) not in nets:
                    nets[n_checkpoints, seed] = _trained(problem, n_checkpoints, seed)
                found, time_taken = _scored(problem, nets[n_checkpoints, seed], make(), folder / "memory")
                np.savez(kept, scores=found, seconds=time_taken)
            with np.load(kept) as file:
                scores.append(file["scores"])
                seconds.append(float(file["seconds"]))
        single = [linear_datamodeling_score(s, truth) for s in scores]
        mean = linear_datamodeling_score(np.mean(scores, axis=0), truth)
        one = np.mean([s.score for s in single])
        (low, high), (mean_low, mean_high) = single[0].interval, mean.interval
        print(
            f"| {name} | {one:.3f} | {low:.3f} to {high:.3f} | {mean.score:.3f} | {mean_low:.3f} to "
            f"{mean_high:.3f} | {np.median(seconds):.1f} |",
            flush=True,
        )


def _scored(problem: Problem, net: Any, est: Any, memory: Path) -> tuple[np.ndarray, float]:
    """Return the scores of one network, and the seconds that they took."""
    settings = {"random_state": 0, "measurement": problem.measurement, "memory": str(memory)}
    est.set_params(**{name: value for name, value in settings.items() if name in est.get_params()})
    start = time.perf_counter()
    scores = est.fit(net, problem.X_train, problem.y_train).transform(problem.X_query, problem.y_query)
    return scores, time.perf_counter() - start


def _trained(problem: Problem, n_checkpoints: int, seed: int) -> Any:
    """Return a net trained on all rows, recorded."""
    with seeded(seed):
        return problem.make_net(n_checkpoints).fit(problem.X_train, problem.y_train)


def run(
    doc: str, stem: str, problems: dict, methods: dict, n_subsets: int, n_repeats: int, data: str | None = None
) -> None:
    """Run from the command line: ``problems[recipe](folder of data)`` and ``methods[kind](recipe)``."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if data is not None:
        parser.add_argument("--data", type=Path, required=True, help=data)
    parser.add_argument("--recipe", choices=list(problems), default="sgd")
    parser.add_argument("--truth", type=Path, help=f"file of the truth (default: {stem}_RECIPE.npz)")
    parser.add_argument("--methods", choices=list(methods), default=next(iter(methods)))
    parser.add_argument("--n-subsets", type=int, default=n_subsets)
    parser.add_argument("--n-repeats", type=int, default=n_repeats)
    parser.add_argument("--n-networks", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    problem = problems[args.recipe](args.data) if data is not None else problems[args.recipe]()
    path = args.truth or Path(f"{stem}_{args.recipe}.npz")
    truth = make_truth(problem, path, args.n_subsets, args.n_repeats)
    compare(problem, truth, methods[args.methods](args.recipe), path.with_suffix(".scores"), args.n_networks)
