"""Which method to believe: linear datamodeling scores of every method, with intervals and noise ceilings.

Networks trained on random halves of the rows are the truth. Every method scores several networks that were trained on
all rows. "One network" is the mean of their scores, with the mean ends of their intervals; "more than SOURCE, L = 1"
the same for the paired differences from SOURCE of one segment; "mean of networks" is the score of their averaged
attributions. Slopes are of what was retrained on what was predicted, 1 for scores that are right in size.

    python benchmarks/lds.py concrete-sgd concrete-adamw questions-adamw plays-sgd
    python benchmarks/lds.py mnist mnist-noisy --mnist FOLDER
    python benchmarks/lds.py concrete-sgd --grid --tables docs/lds
    python benchmarks/lds.py concrete-steps concrete-stages --segments --tables docs/lds
    python benchmarks/lds.py concrete-stages mnist-noisy --equal-steps --mnist FOLDER --tables docs/lds

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
from _lds_problems import PROBLEMS, Problem, retrain_in_stages
from sklearn.base import BaseEstimator, clone

from sklearn_source import (
    EmpiricalInfluence,
    GradientSimilarity,
    InfluenceFunctions,
    RepresentationSimilarity,
    SnapshotInfluence,
    SourceAttribution,
    TracIn,
)
from sklearn_source.curvature import EKFAC, ExactGaussNewton
from sklearn_source.metrics import linear_datamodeling_difference, linear_datamodeling_score
from sklearn_source.retraining import Retraining, retrain_on_subsets
from sklearn_source.utils._random import seeded

# Name of a method to (checkpoints it needs recorded, what makes it).
Methods = dict[str, tuple[int, Callable[[], BaseEstimator]]]
# Resamples behind an interval: they add what queries share of the subsets' chance, a small part of its width.
N_BOOTSTRAP = 200
# With which all others are compared, those variants of SOURCE too that differ from it in one thing.
ONE_SEGMENT = "SOURCE, L = 1"
one_segment = functools.partial(SourceAttribution, n_segments=1)
# That of which changes are predicted, subset by subset, instead of scores.
REWEIGHTING = "SOURCE, predict_reweighting"
# Fisher columns of influence functions by the whole matrix.
N_COLUMNS = 4096


def every_method(adaptive: bool) -> Methods:
    """Return one entry for every method of the package, at its defaults but for what makes it another method."""
    methods: Methods = {
        f"gradient similarity, {m}": (6, functools.partial(GradientSimilarity, metric=m)) for m in ("dot", "cosine")
    }
    for m in ("dot", "cosine", "l2"):
        methods[f"representation similarity, {m}"] = (6, functools.partial(RepresentationSimilarity, metric=m))
    methods["TracIn, C = 6"] = (6, TracIn)
    old = functools.partial(InfluenceFunctions, curvature=EKFAC(coupling=None), damping="mean_eigenvalue")
    methods["influence functions, uncoupled, damping = mean_eigenvalue"] = (6, old)
    methods["influence functions, uncoupled"] = (
        6,
        functools.partial(InfluenceFunctions, curvature=EKFAC(coupling=None)),
    )
    methods["influence functions"] = (6, InfluenceFunctions)
    whole = functools.partial(InfluenceFunctions, curvature=ExactGaussNewton(max_rows=N_COLUMNS))
    methods[f"influence functions, exact, {N_COLUMNS} columns"] = (6, whole)
    methods[f"{ONE_SEGMENT}, uncoupled"] = (6, functools.partial(one_segment, curvature=EKFAC(coupling=None)))
    methods["SOURCE, uncoupled"] = (6, functools.partial(SourceAttribution, curvature=EKFAC(coupling=None)))
    methods[ONE_SEGMENT] = (6, one_segment)
    methods["SOURCE"] = (6, SourceAttribution)
    if adaptive:
        methods[f"{ONE_SEGMENT}, adam = paper"] = (6, functools.partial(one_segment, adam="paper"))
    else:
        shampoo = functools.partial(one_segment, curvature=EKFAC(basis="shampoo"))
        methods[f"{ONE_SEGMENT}, shampoo basis"] = (6, shampoo)
    methods[f"{ONE_SEGMENT}, averaged parameters"] = (6, functools.partial(one_segment, averaging="parameters"))
    methods[REWEIGHTING] = (6, SourceAttribution)
    snapshots = functools.partial(SnapshotInfluence, curvature=ExactGaussNewton(max_rows=N_COLUMNS))
    methods[f"snapshots, exact, {N_COLUMNS} columns"] = (6, snapshots)
    return methods


def settings_grid() -> Methods:
    """Return damped influence functions, and SOURCE over numbers of segments and checkpoints and both quadratures."""
    methods: Methods = {
        f"influence functions, damping {damping:g}": (6, functools.partial(InfluenceFunctions, damping=damping))
        for damping in (1e-3, 1e-2, 1e-1)
    }
    methods["TracIn, C = 24"] = (24, TracIn)
    for C in (6, 24):
        for L in (1, 2, 3, 6):
            for rule in ("trapezoid", "right"):
                make = functools.partial(SourceAttribution, n_segments=L, quadrature=rule)
                methods[f"SOURCE, L = {L}, C = {C}, {rule}"] = (C, make)
    for C in (6, 24):
        uncoupled = functools.partial(one_segment, curvature=EKFAC(coupling=None))
        methods[f"{ONE_SEGMENT}, uncoupled, C = {C}"] = (C, uncoupled)
    return methods


def segments_grid() -> Methods:
    """Return SOURCE over numbers of segments, with layers coupled and uncoupled."""
    curvatures = {"": EKFAC(), ", uncoupled": EKFAC(coupling=None)}
    return {
        f"SOURCE, L = {L}{kind}": (
            6,
            functools.partial(SourceAttribution, n_segments=L, curvature=clone(curvature)),
        )
        for kind, curvature in curvatures.items()
        for L in (1, 2, 3, 6)
    }


def make_truth(
    problem: Problem, folder: Path, name: str = "truth", random_state: int = 0, *, equal_steps: bool = False
) -> Retraining:
    """Load the truth, or train it: half of the rows per subset, in as many epochs or in as many steps."""
    name += "-equal-steps" if equal_steps else ""
    path = folder / f"{name}.npz"
    if path.exists():
        return Retraining.load(path)
    if problem.second is not None:
        truth = retrain_in_stages(problem, random_state, equal_steps)
        truth.save(path)
        return truth
    start = time.perf_counter()
    truth = retrain_on_subsets(
        problem.make_net(None), problem.X_train, problem.y_train, problem.X_query, problem.y_query,
        n_subsets=problem.n_subsets, subset_size=0.5, n_repeats=problem.n_repeats, random_state=random_state,
        equal_steps=equal_steps, measurement=problem.measurement, cache=folder / f"{name}.parts", verbose=1,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    print(f"retrained {problem.n_subsets * problem.n_repeats} networks in {seconds:.1f} s")
    truth.save(path)
    return truth


class Scorer:
    """Scores of methods on the networks of one problem, kept in a folder."""

    def __init__(self, problem: Problem, folder: Path, n_networks: int, masks: np.ndarray) -> None:
        self.problem, self.folder, self.n_networks, self.masks = problem, folder, n_networks, masks
        self.nets: dict[tuple[int, int], Any] = {}
        (folder / "scores").mkdir(parents=True, exist_ok=True)

    def __call__(self, name: str, n_checkpoints: int, make: Callable[[], BaseEstimator]) -> tuple[list, float]:
        """Return the scores of every network, and the median seconds they took."""
        scores, seconds = [], []
        for seed in range(self.n_networks):
            kept = self.folder / "scores" / f"{name.replace(' ', '_')}_{seed}.npz"
            if not kept.exists():
                start = time.perf_counter()
                found = self._scores(self._net(n_checkpoints, seed), make(), name == REWEIGHTING)
                np.savez(kept, scores=found, seconds=time.perf_counter() - start)
            with np.load(kept) as file:
                scores.append(file["scores"])
                seconds.append(float(file["seconds"]))
        return scores, float(np.median(seconds))

    def _scores(self, net: Any, est: BaseEstimator, predicts: bool) -> np.ndarray:
        """Fit and transform, or predict every subset; statistics that several methods share are fitted once."""
        problem = self.problem
        settings = {"random_state": 0, "measurement": problem.measurement}
        est.set_params(**{name: value for name, value in settings.items() if name in est.get_params()})
        if "curvature" in est.get_params():
            est.set_params(curvature__memory=str(self.folder / "memory"))
        est.fit(net, problem.X_train, problem.y_train)
        if predicts:
            return est.predict_reweighting(problem.X_query, problem.y_query, weights=self.masks.astype(float)).T
        return est.transform(problem.X_query, problem.y_query)

    def _net(self, n_checkpoints: int, seed: int) -> Any:
        """Return a net trained on all rows, recorded."""
        if (n_checkpoints, seed) not in self.nets:
            with seeded(seed):
                self.nets[n_checkpoints, seed] = self.problem.fit(self.problem.make_net(n_checkpoints))
        return self.nets[n_checkpoints, seed]


class Table:
    """Rows of (method, one network, more than one segment, mean of networks), printed and written as each is ready."""

    def __init__(self, truth: Retraining, source: list[np.ndarray], path: Path | None) -> None:
        self.truth, self.source, self.path = truth, source, path
        self.rows: list[tuple[str, ...]] = []
        several = f"mean of {len(source)} networks"
        self.add(("method", "one network", "slope", f"more than {ONE_SEGMENT}", several, "slope of the mean"))

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
        self.add((f"noise ceiling ({repeats})", ceiling, "", "", ceiling, ""))

    def add_method(self, name: str, scores: list[np.ndarray], has_unit: bool = True) -> None:
        """Add a method by its scores for every network, or by one that belongs to none of them.

        Those of ``REWEIGHTING`` are predictions, a line for every subset.
        """
        single = [self._against_truth(s, name == REWEIGHTING) for s in scores]
        one = _mean_with_interval([(s.score, *s.interval) for s in single])
        differences = [
            linear_datamodeling_difference(
                None if name == REWEIGHTING else own, source, self.truth, n_bootstrap=N_BOOTSTRAP,
                predicted=own if name == REWEIGHTING else None,
            )
            for own, source in zip(itertools.cycle(scores), self.source)
        ]  # fmt: skip
        if any(d.per_query.any() for d in differences):
            more = _mean_with_interval([(d.difference, *d.interval) for d in differences], sign="+")
        else:
            more = ""
        together = self._against_truth(np.mean(scores, axis=0), name == REWEIGHTING)
        slopes = f"{np.mean([s.slope for s in single]):.2f}", f"{together.slope:.2f}"
        slope, slope_of_mean = slopes if has_unit else ("", "")
        self.add((name, one, slope, more, _mean_with_interval([(together.score, *together.interval)]), slope_of_mean))

    def _against_truth(self, found: np.ndarray, predicts: bool) -> Any:
        scores, predicted = (None, found) if predicts else (found, None)
        return linear_datamodeling_score(scores, self.truth, predicted=predicted, n_bootstrap=N_BOOTSTRAP)


def _mean_with_interval(found: list[tuple[float, float, float]], sign: str = "") -> str:
    score, low, high = (f"{value:{sign}.3f}" for value in np.mean(found, axis=0))
    return f"{score} [{low}, {high}]"


def compare(
    problem: Problem,
    methods: Methods,
    folder: Path,
    n_networks: int,
    path: Path | None,
    *,
    empirical: bool,
    equal_steps: bool,
) -> None:
    """Score every method against the truth."""
    truth = make_truth(problem, folder, equal_steps=equal_steps)
    print(f"\n{problem.name}: {len(problem.X_train)} rows, {len(problem.X_query)} queries")
    scorer = Scorer(problem, folder, n_networks, truth.masks)
    table = Table(truth, scorer(ONE_SEGMENT, 6, one_segment)[0], path)
    table.add_ceiling()
    for name, (n_checkpoints, make) in methods.items():
        scores, seconds = scorer(name, n_checkpoints, make)
        print(f"{seconds:.1f} s for ", end="")
        table.add_method(name, scores, make().has_unit)
    if empirical:
        second = make_truth(problem, folder, "second", random_state=1, equal_steps=equal_steps)
        scores = EmpiricalInfluence(second).fit(problem.X_train, problem.y_train).transform(problem.X_query)
        others = f"{second.n_subsets * second.n_repeats} other networks"
        table.add_method(f"empirical influence, {others}", [scores], has_unit=False)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="+", choices=list(PROBLEMS))
    parser.add_argument("--grid", action="store_true", help="dampings, segments, checkpoints and quadratures instead")
    parser.add_argument("--segments", action="store_true", help="numbers of segments instead, coupled and not")
    parser.add_argument("--empirical", action="store_true", help="also Feldman & Zhang's, from a second retraining")
    parser.add_argument("--equal-steps", action="store_true", help="halves in as many steps, not epochs, as all rows")
    parser.add_argument("--mnist", type=Path, help="folder of the files of MNIST")
    parser.add_argument("--results", type=Path, default=Path("lds"), help="where truths and scores are kept")
    parser.add_argument("--tables", type=Path, help="where to write a CSV table per problem")
    parser.add_argument("--n-networks", type=int, help="other than the problem's own")
    parser.add_argument("--without", nargs="+", default=[], metavar="METHOD", help="names of methods to leave out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="where networks are trained and explained: cpu or cuda")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    kind = "-settings" if args.grid else "-segments" if args.segments else ""
    for name in args.problems:
        problem = PROBLEMS[name](args.mnist).on(args.device)
        methods = every_method(problem.adaptive)
        if args.grid or args.segments:
            methods = settings_grid() if args.grid else segments_grid()
        methods = {method: made for method, made in methods.items() if method not in args.without}
        steps = "-equal-steps" if args.equal_steps else ""
        table = None if args.tables is None else args.tables / f"{name}{kind}{steps}.csv"
        n_networks, folder = args.n_networks or problem.n_networks, args.results / name
        options = {"empirical": args.empirical, "equal_steps": args.equal_steps}
        compare(problem, methods, folder, n_networks, table, **options)


if __name__ == "__main__":
    main()
