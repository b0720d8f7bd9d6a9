"""Are influences that an ensemble calls certain really so? Their signs against retraining without the row.

    python benchmarks/certain_signs.py concrete-sgd --results lds --tables docs/lds

Some rows drawn at random, and the strongest of some queries, are left out in turn, twenty times each, from the same
weights and with the same batches as the trainings on all rows. Counted are pairs (query, row) whose sign the mean of
the twenty confirms, by the strength of what the ensemble says of them: most effects are smaller than what twenty
retrainings can tell from nothing, so that no sign of theirs can be confirmed more than half of the time. "Certain" are
those that ``stable_influences`` calls so; "retraining sure" those with a mean of more than two standard errors (6 % of
pure noise). ``AUC``: how well the size of mean by error of the ensemble tells right signs from wrong ones. Intervals
(95 %) are over rows left out.
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
        "SOURCE, 10 networks": AttributionEnsemble(
            SourceAttribution(n_segments=1, **common), n_members=10, random_state=0
        ),
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
    if np.isnan(drawn).all():
        return ""
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return f"{count(np.arange(n_rows)):.3f} [{low:.3f}, {high:.3f}]"


def judged(right: NDArray, sure: NDArray, stable: NDArray, strength: NDArray, chosen: NDArray) -> tuple[Any, ...]:
    """Return numbers for the table from some of the pairs, all (n_rows, n_query)."""

    def share(these: NDArray) -> str:
        return with_interval(lambda i: float(right[i][these[i]].mean()) if these[i].any() else np.nan, len(right))

    def auc(i: NDArray) -> float:
        found = right[i][chosen[i]]
        return float(roc_auc_score(found, strength[i][chosen[i]])) if 0 < found.sum() < len(found) else np.nan

    certain = chosen & stable
    numbers = int(chosen.sum()), f"{sure[chosen].mean():.2f}", share(chosen), int(certain.sum())
    return (*numbers, share(certain) if certain.any() else "", with_interval(auc, len(right)))


HEADER = (
    "ensemble", "pairs", "mean size of score", "number", "retraining sure", "right signs", "certain",
    "right signs of these", "AUC",
)  # fmt: skip
# Where the bands of strength end, in pairs.
BANDS = (20, 60, 150, 400)


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
    table: list[tuple[Any, ...]] = [HEADER]
    for name, (scores, errors, stable) in opinions.items():
        found, strength = scores[:, rows].T, np.abs(scores / errors)[:, rows].T
        right = np.sign(found) == np.sign(mean)
        place = (-np.abs(found)).argsort(axis=None).argsort().reshape(found.shape)
        ends = 0, *BANDS, found.size
        for start, end in (*zip(ends, ends[1:]), (0, found.size)):
            chosen = (place >= start) & (place < end)
            strong = f"{np.abs(found[chosen]).mean():.4f}"
            numbers = judged(right, sure, stable[:, rows].T, strength, chosen)
            table.append((name, f"{start + 1} to {end}", strong, *numbers))
            print(" | ".join(str(value) for value in table[-1]), flush=True)
    with (args.tables / f"certain-signs-{args.problem}.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(table)


if __name__ == "__main__":
    main()
