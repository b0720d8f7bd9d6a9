"""What ensembles gain for what they cost: several methods, alone and by cheap members, over one to ten networks.

    python benchmarks/frontier.py concrete-sgd --results lds --tables docs/lds --n-networks 10
    python benchmarks/frontier.py mnist --results lds --tables docs/lds --mnist FOLDER --members final,snapshots-6

For every trained network, each method explains it alone ("final"), by its snapshots, by sub-networks of dropout and by
low-rank adapters; scores of several networks are averaged. Written per task: the linear datamodeling score with its
interval, the slope (of what retraining showed on what was predicted, where scores have a unit), seconds of ``fit`` and
``transform`` of all members together on one thread, and megabytes of what has to be kept to serve (the fitted
estimators, pickled). The truth is that of ``lds.py`` in the same folder; none of its networks is a member. Scores are
kept: what is there is not computed again.
"""

from __future__ import annotations

import argparse
import csv
import functools
import pickle
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _lds_problems import PROBLEMS, Problem
from lds import make_truth
from sklearn.base import BaseEstimator

from sklearn_source import (
    TRAK,
    AttributionEnsemble,
    DropoutEnsemble,
    GradientSimilarity,
    InfluenceFunctions,
    LoRAEnsemble,
    SnapshotInfluence,
    SourceAttribution,
    TracIn,
)
from sklearn_source.curvature import EKFAC, Curvature, ExactGaussNewton
from sklearn_source.metrics import linear_datamodeling_score
from sklearn_source.retraining import Retraining
from sklearn_source.utils._random import seeded

_CURVATURES: dict[str, Callable[[], Curvature]] = {
    "uncoupled": functools.partial(EKFAC, coupling=None),
    "layers": EKFAC,
    "krylov": functools.partial(EKFAC, coupling="krylov"),
    "exact": functools.partial(ExactGaussNewton, max_rows=4096),
}
METHODS: dict[str, Callable[[], BaseEstimator]] = {
    **{
        f"{name}, {kind}": functools.partial(make, curvature=curvature())
        for kind, curvature in _CURVATURES.items()
        for name, make in (
            ("influence functions", InfluenceFunctions),
            ("SOURCE, L = 1", functools.partial(SourceAttribution, n_segments=1)),
            ("SOURCE", SourceAttribution),
        )
    },
    "TRAK": TRAK,
    "TracIn": TracIn,
    "gradient dot": functools.partial(GradientSimilarity, metric="dot"),
    "gradient cosine": functools.partial(GradientSimilarity, metric="cosine"),
}
# Checkpoints recorded for a single network, as in lds.py.
N_CHECKPOINTS = 6
N_BOOTSTRAP = 100


def with_members(members: str, method: BaseEstimator) -> tuple[int, BaseEstimator]:
    """Return how many members a network gives, and the estimator; ``members``: "final", "snapshots-8", "lora-5"..."""
    kind, _, number = members.partition("-")
    n = int(number or 1)
    if kind == "final":
        return n, method
    if kind == "snapshots" and isinstance(method, InfluenceFunctions):
        return n, SnapshotInfluence(n_snapshots=n, curvature=method.curvature)
    if kind == "snapshots":
        return n, AttributionEnsemble(method, members="snapshots", n_members=n)
    if kind == "dropout":
        return n, DropoutEnsemble(method, n_masks=n, random_state=0)
    return n, LoRAEnsemble(method, n_members=n, random_state=0)


class Runner:
    """Scores of one problem's networks, kept in a folder."""

    def __init__(self, problem: Problem, folder: Path, n_recorded: int) -> None:
        self.problem, self.folder, self.n_recorded = problem, folder / "frontier", n_recorded
        self.nets: dict[tuple[int, int], Any] = {}
        self.folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, members: str, method: str, seed: int) -> dict[str, Any]:
        """Return scores (n_query, n_train), seconds of fit and transform, bytes and has_unit."""
        name = f"{members}_{method}_{seed}".replace(" ", "_").replace(",", "")
        kept = self.folder / f"{name}.npz"
        if not kept.exists():
            np.savez(kept, **self._found(members, method, seed))
        with np.load(kept) as file:
            return {key: file[key] for key in file.files}

    def _found(self, members: str, method: str, seed: int) -> dict[str, Any]:
        problem, made = self.problem, METHODS[method]()
        settings = {"random_state": 0, "measurement": problem.measurement}
        made.set_params(**{name: value for name, value in settings.items() if name in made.get_params()})
        _, est = with_members(members, made)
        est.set_params(**{name: value for name, value in settings.items() if name in est.get_params()})
        net = self._net(self.n_recorded if members.startswith("snapshots") else N_CHECKPOINTS, seed)
        start = time.perf_counter()
        est.fit(net, problem.X_train, problem.y_train)
        fitted = time.perf_counter()
        scores = est.transform(problem.X_query, problem.y_query)
        served = time.perf_counter()
        return {
            "scores": np.asarray(scores, dtype=np.float32), "fit": fitted - start, "transform": served - fitted,
            "bytes": len(pickle.dumps(est)), "has_unit": est.has_unit,
        }  # fmt: skip

    def _net(self, n_checkpoints: int, seed: int) -> Any:
        if (n_checkpoints, seed) not in self.nets:
            with seeded(seed):
                self.nets[n_checkpoints, seed] = self.problem.fit(self.problem.make_net(n_checkpoints))
        return self.nets[n_checkpoints, seed]


def rows_of(truth: Retraining, found: list[dict[str, Any]], sizes: Iterable[int]) -> Iterator[tuple[Any, ...]]:
    """Yield (networks, score, low, high, slope, seconds of fit and transform, megabytes) for the first k networks.

    The line of one network is the mean over all that there are, of the ends of intervals too.
    """
    fit, transform, size = (float(np.median([f[key] for f in found])) for key in ("fit", "transform", "bytes"))
    for k in (k for k in sizes if k <= len(found)):
        means = [f["scores"] for f in found] if k == 1 else [np.mean([f["scores"] for f in found[:k]], axis=0)]
        judged = [linear_datamodeling_score(s, truth, n_bootstrap=N_BOOTSTRAP) for s in means]
        score, low, high, slope = np.mean([(r.score, *r.interval, r.slope) for r in judged], axis=0)
        shown = f"{slope:.2f}" if found[0]["has_unit"] else ""
        numbers = (f"{score:.3f}", f"{low:.3f}", f"{high:.3f}", shown)
        yield k, *numbers, f"{k * fit:.2f}", f"{k * transform:.2f}", f"{k * size / 2**20:.1f}"


HEADER = ("members", "method", "networks", "LDS", "low", "high", "slope", "fit, s", "transform, s", "MB")


def write(path: Path, rows: list[tuple[Any, ...]]) -> None:
    """Put rows into the table, in place of older ones of the same members, method and networks."""
    kept: dict[tuple[str, ...], tuple[Any, ...]] = {}
    if path.exists():
        with path.open(newline="") as file:
            kept = {tuple(row[:3]): tuple(row) for row in list(csv.reader(file))[1:]}
    kept.update({tuple(str(value) for value in row[:3]): row for row in rows})
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([HEADER, *kept.values()])


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problem", choices=list(PROBLEMS))
    parser.add_argument("--members", default="final,snapshots-8,dropout-10,lora-5")
    parser.add_argument("--methods", default=";".join(METHODS), help="separated by semicolons")
    parser.add_argument("--recorded", type=int, default=16, help="checkpoints recorded where there are snapshots")
    parser.add_argument("--n-networks", type=int, default=3)
    parser.add_argument("--mnist", type=Path, help="folder of the files of MNIST")
    parser.add_argument("--results", type=Path, default=Path("lds"), help="where truths and scores are kept")
    parser.add_argument("--tables", type=Path, default=Path("."), help="where to write the table")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="where networks are trained and explained: cpu or cuda")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    problem = PROBLEMS[args.problem](args.mnist).on(args.device)
    folder = args.results / args.problem
    truth, run = make_truth(problem, folder), Runner(problem, folder, args.recorded)
    for members in args.members.split(","):
        for method in args.methods.split(";"):
            try:
                found = [run(members, method, seed) for seed in range(args.n_networks)]
            except ValueError as error:
                print(f"{members} | {method} | refused: {error}", flush=True)
                continue
            sizes = sorted({1, 3, 5, 10, args.n_networks})
            rows = [(members, method, *row) for row in rows_of(truth, found, sizes)]
            write(args.tables / f"frontier-{args.problem}.csv", rows)
            for row in rows:
                print(" | ".join(str(value) for value in row), flush=True)


if __name__ == "__main__":
    main()
