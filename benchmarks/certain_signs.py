"""Are influences that an ensemble calls certain really so? Their signs against retraining without the row.

    python benchmarks/certain_signs.py concrete-sgd --results lds --tables docs/lds

Some rows drawn at random, and the strongest of some queries, are left out in turn, twenty times each, from the same
weights and with the same batches as the trainings on all rows. Counted are pairs (query, row) whose sign the mean of
the twenty confirms: all, those that ``stable_influences`` calls certain, and those for which the twenty are sure (a
mean of more than two standard errors). ``AUC``: how well |mean| / error of the ensemble tells right signs from wrong
ones. Intervals (95 %) are over rows left out.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _lds_problems import PROBLEMS, Problem
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from sklearn_source import AttributionEnsemble, InfluenceFunctions, SnapshotInfluence, SourceAttribution
from sklearn_source.curvature import ExactGaussNewton
from sklearn_source.retraining import Retraining, leave_one_out
from sklearn_source.utils._random import seeded

N_SNAPSHOTS = 16
N_BOOTSTRAP = 200
EXACT = ExactGaussNewton(max_rows=4096)


def ensembles(measurement: str) -> dict[str, AttributionEnsemble]:
    """Return the ensembles by name; the last is the one whose strongest rows are left out too."""
    common = {"measurement": measurement, "random_state": 0}
    influence = InfluenceFunctions(curvature=EXACT, **common)
    snapshots = SnapshotInfluence(n_snapshots=8, curvature=EXACT, **common)
    return {
        "influence functions, exact, 16 snapshots of one run": AttributionEnsemble(influence, members="snapshots"),
        "influence functions, exact, 10 networks": AttributionEnsemble(influence, n_members=10, random_state=0),
        "SOURCE, 10 networks": AttributionEnsemble(SourceAttribution(**common), n_members=10, random_state=0),
        "8 snapshots, exact, of each of 10 networks": AttributionEnsemble(snapshots, n_members=10, random_state=0),
    }


def opinion(problem: Problem, ensemble: AttributionEnsemble, path: Path) -> tuple[np.ndarray, ...]:
    """Return scores, errors and whether stable, each (n_query, n_train), kept in a file."""
    if not path.exists():
        with seeded(1000):
            net = problem.make_net(N_SNAPSHOTS).fit(problem.X_train, problem.y_train)
        ensemble.fit(net, problem.X_train, problem.y_train)
        found = ensemble.stable_influences(problem.X_query, problem.y_query)
        np.savez(path, scores=found.scores, errors=found.errors, stable=found.stable)
    with np.load(path) as file:
        return file["scores"], file["errors"], file["stable"]


def make_truth(problem: Problem, rows: NDArray, n_repeats: int, path: Path) -> Retraining:
    """Load the retrainings without each of the rows, or do them; the other rows keep their weights."""
    if not path.exists():
        leave_one_out(
            problem.make_net(None), problem.X_train, problem.y_train, problem.X_query, problem.y_query, rows=rows,
            n_repeats=n_repeats, renormalize=False, measurement=problem.measurement, random_state=7, verbose=1,
        ).save(path)  # fmt: skip
    return Retraining.load(path)


def with_interval(count: Callable[[NDArray], float], n_rows: int) -> str:
    """Format a number of rows' indices, with the interval of rows drawn anew."""
    rng = np.random.default_rng(0)
    drawn = [count(rng.integers(0, n_rows, n_rows)) for _ in range(N_BOOTSTRAP)]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return f"{count(np.arange(n_rows)):.3f} [{low:.3f}, {high:.3f}]"


def judged(name: str, pairs: str, right: NDArray, sure: NDArray, stable: NDArray, strength: NDArray) -> tuple[Any, ...]:
    """Return a line of the table from pairs (n_rows, n_query); those with a ``strength`` of NaN do not count."""
    counts = np.isfinite(strength)

    def share(chosen: NDArray) -> str:
        return with_interval(lambda i: float(np.mean(right[i][chosen[i]])) if chosen[i].any() else np.nan, len(right))

    def auc(chosen: NDArray) -> str:
        def of(i: NDArray) -> float:
            found = right[i][chosen[i]]
            return float(roc_auc_score(found, strength[i][chosen[i]])) if 0 < found.sum() < len(found) else np.nan

        return with_interval(of, len(right))

    called = counts & stable
    return (
        name, pairs, int(counts.sum()), int(called.sum()), share(counts), share(called), int((called & sure).sum()),
        share(counts & sure), share(called & sure), auc(counts), auc(counts & sure),
    )  # fmt: skip


HEADER = (
    "ensemble", "pairs", "number", "called certain", "right signs", "right signs of the certain",
    "certain, retraining sure", "right signs, retraining sure", "right signs of the certain, retraining sure", "AUC",
    "AUC, retraining sure",
)  # fmt: skip


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problem", choices=list(PROBLEMS))
    parser.add_argument("--random-rows", type=int, default=60)
    parser.add_argument("--top-queries", type=int, default=40, help="queries whose strongest row is left out too")
    parser.add_argument("--n-repeats", type=int, default=20)
    parser.add_argument("--mnist", type=Path, help="folder of the files of MNIST")
    parser.add_argument("--results", type=Path, default=Path("lds"), help="where truths and scores are kept")
    parser.add_argument("--tables", type=Path, default=Path("."), help="where to write the table")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    problem = PROBLEMS[args.problem](args.mnist)
    folder = args.results / args.problem / "certain"
    folder.mkdir(parents=True, exist_ok=True)
    made = enumerate(ensembles(problem.measurement).items())
    opinions = {name: opinion(problem, ensemble, folder / f"ensemble_{i}.npz") for i, (name, ensemble) in made}
    scores = list(opinions.values())[-1][0]
    rng = np.random.default_rng(0)
    asked = rng.permutation(len(scores))[: args.top_queries]
    drawn = rng.permutation(scores.shape[1])[: args.random_rows]
    rows = np.union1d(drawn, np.abs(scores[asked]).argmax(axis=1))
    truth = make_truth(problem, rows, args.n_repeats, folder / "without.npz")
    missing = ~truth.masks
    whole, single = np.flatnonzero(missing.sum(1) == 0), np.flatnonzero(missing.sum(1) == 1)
    rows = missing[single].argmax(axis=1)
    effects = truth.outputs[whole].mean(axis=0) - truth.outputs[single]  # (n_rows, n_repeats, n_query)
    mean, error = effects.mean(axis=1), effects.std(axis=1, ddof=1) / np.sqrt(effects.shape[1])
    sure = np.abs(mean) > 2 * error
    print(f"{len(rows)} rows; of their pairs retraining is sure of {sure.mean():.1%}")
    table = [HEADER]
    for name, (scores, errors, stable) in opinions.items():
        found, strength = scores[:, rows].T, np.abs(scores / errors)[:, rows].T
        right = np.sign(found) == np.sign(mean)
        strongest = np.zeros_like(sure)
        strongest[:, asked] = np.abs(scores[asked][:, rows].T) >= np.abs(scores[asked]).max(axis=1)
        for pairs, chosen in (
            ("random rows, all queries", np.isin(rows, drawn)[:, None] & np.ones_like(sure)),
            ("a query's strongest row", strongest),
        ):
            masked = np.where(chosen, strength, np.nan)
            table.append(judged(name, pairs, right, sure, stable[:, rows].T, masked))
            print(" | ".join(str(value) for value in table[-1]), flush=True)
    with (args.tables / f"certain-signs-{args.problem}.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(table)


if __name__ == "__main__":
    main()
