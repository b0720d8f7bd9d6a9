"""Which method to believe: linear datamodeling scores of every method, with intervals and noise ceilings.

Networks trained on random halves of the rows are the truth. Every method scores several networks that were trained on
all rows. "One network" is the mean of their scores, with the mean ends of their intervals; "more than SOURCE" the same
for the paired differences from SOURCE at its defaults; "mean of networks" is the score of their averaged attributions.

    python benchmarks/lds.py concrete-sgd concrete-adamw questions-adamw plays-sgd
    python benchmarks/lds.py mnist mnist-noisy --mnist FOLDER
    python benchmarks/lds.py concrete-sgd --grid --tables docs/lds

The folder of MNIST has t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz as they are published. Truths and scores
are kept in ``--results``: what is there is not computed again, and an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import csv
import functools
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _lds_problems import PROBLEMS, Problem
from sklearn.base import BaseEstimator

from sklearn_source import (
    EmpiricalInfluence,
    GradientSimilarity,
    InfluenceFunctions,
    RepresentationSimilarity,
    SourceAttribution,
    TracIn,
)
from sklearn_source.curvature import EKFAC
from sklearn_source.metrics import linear_datamodeling_difference, linear_datamodeling_score
from sklearn_source.retraining import Retraining, retrain_on_subsets
from sklearn_source.utils._random import seeded

# Name of a method to (checkpoints it needs recorded, what makes it).
Methods = dict[str, tuple[int, Callable[[], BaseEstimator]]]
# Resamples behind an interval: they add what queries share of the subsets' chance, a small part of its width.
N_BOOTSTRAP = 200
# With which all others are compared.
SOURCE = "SOURCE, L = 3, C = 6"


def every_method(adaptive: bool) -> Methods:
    """Return one entry for every method of the package, at its defaults but for what makes it another method."""
    methods: Methods = {
        f"gradient similarity, {m}": (6, functools.partial(GradientSimilarity, metric=m)) for m in ("dot", "cosine")
    }
    for m in ("dot", "cosine", "l2"):
        methods[f"representation similarity, {m}"] = (6, functools.partial(RepresentationSimilarity, metric=m))
    methods["TracIn, C = 6"] = (6, TracIn)
    for basis in ("kfac", "shampoo"):
        methods[f"influence functions, {basis} basis"] = (
            6,
            functools.partial(InfluenceFunctions, curvature=EKFAC(basis=basis)),
        )
    methods[SOURCE] = (6, SourceAttribution)
    if adaptive:
        methods["SOURCE, L = 3, C = 6, adam = paper"] = (6, functools.partial(SourceAttribution, adam="paper"))
    else:
        methods["SOURCE, L = 3, C = 6, shampoo basis"] = (
            6,
            functools.partial(SourceAttribution, curvature=EKFAC(basis="shampoo")),
        )
    averaged = functools.partial(SourceAttribution, averaging="parameters")
    methods["SOURCE, L = 3, C = 6, averaged parameters"] = (6, averaged)
    return methods


def settings_grid() -> Methods:
    """Return damped influence functions, and SOURCE over numbers of segments and checkpoints and both quadratures."""
    methods: Methods = {
        f"influence functions, damping {damping:g}": (6, functools.partial(InfluenceFunctions, damping=damping))
        for damping in (1e-3, 1e-2, 1e-1)
    }
    methods["TracIn, C = 24"] = (24, TracIn)
    for C in (6, 12, 24):
        for L in (1, 2, 3, 6):
            for rule in ("trapezoid", "right"):
                make = functools.partial(SourceAttribution, n_segments=L, quadrature=rule)
                methods[f"SOURCE, L = {L}, C = {C}, {rule}"] = (C, make)
    return methods


def make_truth(problem: Problem, folder: Path, name: str = "truth", random_state: int = 0) -> Retraining:
    """Load the truth, or train it: half of the rows per subset."""
    path = folder / f"{name}.npz"
    if path.exists():
        return Retraining.load(path)
    start = time.perf_counter()
    truth = retrain_on_subsets(
        problem.make_net(None), problem.X_train, problem.y_train, problem.X_query, problem.y_query,
        n_subsets=problem.n_subsets, subset_size=0.5, n_repeats=problem.n_repeats, random_state=random_state,
        measurement=problem.measurement, cache=folder / f"{name}.parts", verbose=1,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    print(f"retrained {problem.n_subsets * problem.n_repeats} networks in {seconds:.1f} s")
    truth.save(path)
    return truth


class Scorer:
    """Scores of methods on the networks of one problem, kept in a folder."""

    def __init__(self, problem: Problem, folder: Path, n_networks: int) -> None:
        self.problem, self.folder, self.n_networks = problem, folder, n_networks
        self.nets: dict[tuple[int, int], Any] = {}
        (folder / "scores").mkdir(parents=True, exist_ok=True)

    def __call__(self, name: str, n_checkpoints: int, make: Callable[[], BaseEstimator]) -> tuple[list, float]:
        """Return the scores of every network, and the median seconds they took."""
        scores, seconds = [], []
        for seed in range(self.n_networks):
            kept = self.folder / "scores" / f"{name.replace(' ', '_')}_{seed}.npz"
            if not kept.exists():
                start = time.perf_counter()
                found = self._scores(self._net(n_checkpoints, seed), make())
                np.savez(kept, scores=found, seconds=time.perf_counter() - start)
            with np.load(kept) as file:
                scores.append(file["scores"])
                seconds.append(float(file["seconds"]))
        return scores, float(np.median(seconds))

    def _scores(self, net: Any, est: BaseEstimator) -> np.ndarray:
        """Fit and transform; statistics that several methods share are fitted once."""
        problem = self.problem
        settings = {"random_state": 0, "measurement": problem.measurement}
        est.set_params(**{name: value for name, value in settings.items() if name in est.get_params()})
        if "curvature" in est.get_params():
            est.set_params(curvature__memory=str(self.folder / "memory"))
        return est.fit(net, problem.X_train, problem.y_train).transform(problem.X_query, problem.y_query)

    def _net(self, n_checkpoints: int, seed: int) -> Any:
        """Return a net trained on all rows, recorded."""
        if (n_checkpoints, seed) not in self.nets:
            with seeded(seed):
                net = self.problem.make_net(n_checkpoints)
                self.nets[n_checkpoints, seed] = net.fit(self.problem.X_train, self.problem.y_train)
        return self.nets[n_checkpoints, seed]


class Table:
    """Rows of (method, one network, more than SOURCE, mean of networks), printed and written as each is ready."""

    def __init__(self, truth: Retraining, source: list[np.ndarray], path: Path | None) -> None:
        self.truth, self.source, self.path = truth, source, path
        self.rows: list[tuple[str, ...]] = []
        self.add(("method", "one network", "more than SOURCE", f"mean of {len(source)} networks"))

    def add(self, row: tuple[str, ...]) -> None:
        """Add a row that is made."""
        self.rows.append(row)
        print(" | ".join(row), flush=True)
        if self.path is not None:
            with self.path.open("w", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(self.rows)

    def add_ceiling(self) -> None:
        """Add what perfect scores would reach."""
        nothing = np.zeros((self.truth.n_query, self.truth.n_train))
        ceiling = f"{linear_datamodeling_score(nothing, self.truth, n_bootstrap=2).ceiling:.3f}"
        repeats = f"{self.truth.n_subsets} subsets, {self.truth.n_repeats} repeats"
        self.add((f"noise ceiling ({repeats})", ceiling, "", ceiling))

    def add_method(self, name: str, scores: list[np.ndarray]) -> None:
        """Add a method by its scores for every network, or by one that belongs to none of them."""
        single = [linear_datamodeling_score(s, self.truth, n_bootstrap=N_BOOTSTRAP) for s in scores]
        one = _mean_with_interval([(s.score, *s.interval) for s in single])
        differences = [
            linear_datamodeling_difference(own, source, self.truth, n_bootstrap=N_BOOTSTRAP)
            for own, source in zip(itertools.cycle(scores), self.source)
        ]
        if any(d.per_query.any() for d in differences):
            more = _mean_with_interval([(d.difference, *d.interval) for d in differences], sign="+")
        else:
            more = ""
        together = linear_datamodeling_score(np.mean(scores, axis=0), self.truth, n_bootstrap=N_BOOTSTRAP)
        self.add((name, one, more, _mean_with_interval([(together.score, *together.interval)])))


def _mean_with_interval(found: list[tuple[float, float, float]], sign: str = "") -> str:
    score, low, high = (f"{value:{sign}.3f}" for value in np.mean(found, axis=0))
    return f"{score} [{low}, {high}]"


def compare(
    problem: Problem, methods: Methods, folder: Path, n_networks: int, path: Path | None, empirical: bool
) -> None:
    """Score every method against the truth."""
    truth = make_truth(problem, folder)
    print(f"\n{problem.name}: {len(problem.X_train)} rows, {len(problem.X_query)} queries")
    scorer = Scorer(problem, folder, n_networks)
    table = Table(truth, scorer(SOURCE, 6, SourceAttribution)[0], path)
    table.add_ceiling()
    for name, (n_checkpoints, make) in methods.items():
        scores, seconds = scorer(name, n_checkpoints, make)
        print(f"{seconds:.1f} s for ", end="")
        table.add_method(name, scores)
    if empirical:
        second = make_truth(problem, folder, "second", random_state=1)
        scores = EmpiricalInfluence(second).fit(problem.X_train, problem.y_train).transform(problem.X_query)
        table.add_method(f"empirical influence, {second.n_subsets * second.n_repeats} other networks", [scores])


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="+", choices=list(PROBLEMS))
    parser.add_argument("--grid", action="store_true", help="dampings, segments, checkpoints and quadratures instead")
    parser.add_argument("--empirical", action="store_true", help="also Feldman & Zhang's, from a second retraining")
    parser.add_argument("--mnist", type=Path, help="folder of the files of MNIST")
    parser.add_argument("--results", type=Path, default=Path("lds"), help="where truths and scores are kept")
    parser.add_argument("--tables", type=Path, help="where to write a CSV table per problem")
    parser.add_argument("--n-networks", type=int, help="other than the problem's own")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name in args.problems:
        problem = PROBLEMS[name](args.mnist)
        methods = settings_grid() if args.grid else every_method(problem.adaptive)
        table = None if args.tables is None else args.tables / f"{name}{'-settings' if args.grid else ''}.csv"
        compare(problem, methods, args.results / name, args.n_networks or problem.n_networks, table, args.empirical)


if __name__ == "__main__":
    main()
