"""Whether predictions are right in size: removals of a query's top supporters, and of random rows, against retraining.

    python benchmarks/top_groups.py concrete-sgd concrete-adamw --results lds --tables docs/lds
    python benchmarks/top_groups.py mnist mnist-noisy --mnist FOLDER --results lds --tables docs/lds
    python benchmarks/top_groups.py mnist --mnist FOLDER --results lds --only truth

The strongest 1, 2, 5 and 10 % of the rows of a few queries are removed, and as many random rows, and networks trained
again, from the same initial weights and with the same batches as others on all rows. Slopes are of what that did on
what a method predicts: 1 is right, below 1 the method says too much. All methods predict the same groups: supporters
are those by SOURCE of one network that is not judged, so that no method is judged on groups that its own errors chose.
No network of the truth is judged either. Random groups count for all queries.

Classifiers are asked for log-odds and for the logit of the query's class, by the same networks. Probabilities are what
log-odds say, before and after. The first line of each table is retraining against itself: what the first half of the
repeats did, held against the second half.

Truths and predictions are kept in ``--results``: what is there is not computed again, and an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _lds_problems import PROBLEMS, Problem
from _top_groups_table import Question, Table, log_odds_or_logit, write_summary
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from sklearn_source import InfluenceFunctions, SnapshotInfluence, SourceAttribution
from sklearn_source.curvature import EKFAC, ExactGaussNewton
from sklearn_source.metrics import first_order_change, top_k_removals
from sklearn_source.retraining import Retraining, retrain_without
from sklearn_source.utils._random import seeded

SHARES = (0.01, 0.02, 0.05, 0.10)
# Seed of the network whose scores choose the groups; judged ones have 0, 1, ...
CHOOSES = 1000
N_RECORDED, N_SNAPSHOTS = 16, 8
SUMS = "summed scores"
# Name to (checkpoints recorded, what makes it, the ways in which it predicts).
Methods = dict[str, tuple[int, Callable[[], BaseEstimator], tuple[str, ...]]]
METHODS: Methods = {
    "SOURCE, L = 1, uncoupled": (
        6,
        functools.partial(SourceAttribution, n_segments=1, curvature=EKFAC(coupling=None)),
        (SUMS,),
    ),
    "SOURCE, L = 1": (6, functools.partial(SourceAttribution, n_segments=1), (SUMS,)),
    "SOURCE": (6, SourceAttribution, (SUMS, "damped", "full")),
    "influence functions": (6, InfluenceFunctions, (SUMS, "damped", "full")),
    f"{N_SNAPSHOTS} snapshots, exact": (
        N_RECORDED,
        functools.partial(SnapshotInfluence, n_snapshots=N_SNAPSHOTS, curvature=ExactGaussNewton(max_rows=4096)),
        (SUMS, "damped"),
    ),
}


@dataclass(frozen=True)
class Asked:
    """How much is asked: queries with groups of their own (the first ones) and in all, random groups of every size.

    ``n_repeats`` are networks of the truth for every group, ``n_networks`` those that are judged.
    """

    n_own: int
    n_query: int
    n_random: int
    n_repeats: int
    n_networks: int


ASKED = {
    "concrete-sgd": Asked(10, 50, 8, 30, 3),
    "concrete-adamw": Asked(10, 50, 8, 20, 3),
    "mnist": Asked(5, 20, 4, 4, 2),
    "mnist-noisy": Asked(5, 20, 4, 6, 2),
}


def train(problem: Problem, n_recorded: int, seed: int) -> Any:
    """Return a net trained on all rows, recorded."""
    with seeded(seed):
        return problem.fit(problem.make_net(n_recorded))


def groups_of(problem: Problem, asked: Asked, folder: Path) -> dict[str, NDArray]:
    """Return the groups that are removed: by scores of the network that is not judged, kept in the folder."""
    path = folder / "ranking.npy"
    if not path.exists():
        X, y = problem.X_query[: asked.n_own], problem.y_query
        net = train(problem, 6, CHOOSES)
        est = SourceAttribution(n_segments=1, measurement=problem.measurement, random_state=0)
        est.fit(net, problem.X_train, problem.y_train)
        np.save(path, est.transform(X, None if y is None else y[: asked.n_own]))
    scores = np.load(path)
    return top_k_removals(scores, [round(share * scores.shape[1]) for share in SHARES], n_random=asked.n_random)


def make_truth(
    problem: Problem, asked: Asked, question: Question, removed: dict[str, NDArray], folder: Path
) -> Retraining:
    """Load the networks' measurements, or train them."""
    path = folder / f"truth_{asked.n_repeats}.npz"
    if not path.exists():
        start = time.process_time()
        truth = retrain_without(
            problem.make_net(None), problem.X_train, problem.y_train, question.X, question.y, removed=removed,
            n_repeats=asked.n_repeats, measurement=question.measurement, random_state=11, cache=folder / "parts",
            verbose=1,
        )  # fmt: skip
        truth.save(path)
        print(f"{problem.name}: {truth.seeds.size} networks in {time.process_time() - start:.0f} s of processor time")
    return Retraining.load(path)


class Predictions:
    """Changes that methods predict for networks of one problem, kept in a folder."""

    def __init__(self, problem: Problem, question: Question, removed: dict[str, NDArray], folder: Path) -> None:
        self.problem, self.question, self.folder = problem, question, folder
        self.masks = np.ones((len(removed), len(problem.X_train)), dtype=bool)
        for mask, rows in zip(self.masks, removed.values()):
            mask[rows] = False
        self.fitted: tuple[tuple[str, int], Any] | None = None
        (folder / "predicted").mkdir(exist_ok=True)

    def __call__(self, method: str, way: str, seed: int) -> tuple[NDArray, NDArray]:
        """Return changes (n_groups, n_query) and what the network said before, (n_query,)."""
        kept = self.path(method, way, seed)
        if not kept.exists():
            est, start = self._fitted(method, seed), time.process_time()
            X, y = self.question.X, self.question.y
            if way == SUMS:
                changes = first_order_change(est.transform(X, y), self.masks)
            else:
                changes = est.predict_reweighting(X, y, weights=self.masks.astype(float), step=way).T
            seconds = time.process_time() - start
            np.savez(kept, changes=changes, before=self._before(est.net_), seconds=seconds)
            print(f"{method}, {way}, network {seed}: {seconds:.0f} s of processor time", flush=True)
        with np.load(kept) as file:
            return file["changes"], file["before"]

    def path(self, method: str, way: str, seed: int) -> Path:
        """Return where a network's changes are kept, or would be."""
        return self.folder / "predicted" / f"{method}_{way}_{seed}.npz".replace(" ", "_").replace(",", "")

    def _fitted(self, method: str, seed: int) -> Any:
        if self.fitted is None or self.fitted[0] != (method, seed):
            n_recorded, make, _ = METHODS[method]
            self.fitted = None  # before the next is made: they are large
            est = make().set_params(measurement=self.question.measurement, random_state=0)
            net = train(self.problem, n_recorded, seed)
            self.fitted = (method, seed), est.fit(net, self.problem.X_train, self.problem.y_train)
        return self.fitted[1]

    def _before(self, net: Any) -> NDArray:
        output = torch.as_tensor(np.asarray(net.forward(self.question.X)))
        if self.question.y is None:
            return output.numpy().ravel()
        return log_odds_or_logit(output, torch.as_tensor(self.question.y)).numpy()


def compare(
    problem: Problem, asked: Asked, folder: Path, path: Path | None, methods: Methods, only: str | None
) -> None:
    """Hold every method's predictions against the truth."""
    folder.mkdir(parents=True, exist_ok=True)
    question, removed = Question(problem, asked.n_query), groups_of(problem, asked, folder)
    predictions = Predictions(problem, question, removed, folder)
    if only not in ("truth", "table"):
        # Network by network: an estimator that is fitted predicts in all its ways.
        for method, (_, _, ways) in methods.items():
            for seed, way in itertools.product(range(asked.n_networks), ways):
                predictions(method, way, seed)
    if only == "predictions":
        return
    truth = make_truth(problem, asked, question, removed, folder)
    if only == "truth":
        return
    print(f"\n{problem.name}: {truth.n_subsets - 1} groups, {truth.n_repeats} repeats")
    table = Table(question, truth, SHARES, path)
    table.add_retraining()
    for method, (_, _, ways) in methods.items():
        for way in ways:
            seeds = range(asked.n_networks)
            there = [seed for seed in seeds if only != "table" or predictions.path(method, way, seed).exists()]
            if there:
                table.add(f"{method}, {way}", [predictions(method, way, seed) for seed in there])


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="+", choices=list(ASKED))
    parser.add_argument("--mnist", type=Path, help="folder of the files of MNIST")
    parser.add_argument("--results", type=Path, default=Path("lds"), help="where truths and predictions are kept")
    parser.add_argument("--tables", type=Path, help="where to write a CSV table per problem")
    parser.add_argument("--n-repeats", type=int, help="other than the problem's own; those that are kept count")
    parser.add_argument("--n-networks", type=int, help="that are judged, other than the problem's own")
    parser.add_argument("--without", nargs="+", default=[], metavar="METHOD", help="names of methods to leave out")
    parser.add_argument("--only", choices=("truth", "predictions", "table"), help="the table: of what is kept")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    methods = {name: made for name, made in METHODS.items() if name not in args.without}
    for name in args.problems:
        table = None if args.tables is None else args.tables / f"top-groups-{name}.csv"
        folder = args.results / name / "top-groups"
        asked, given = ASKED[name], {"n_repeats": args.n_repeats, "n_networks": args.n_networks}
        asked = replace(asked, **{key: value for key, value in given.items() if value})
        compare(PROBLEMS[name](args.mnist), asked, folder, table, methods, args.only)
    if args.tables is not None:
        write_summary(args.tables, list(ASKED))


if __name__ == "__main__":
    main()
