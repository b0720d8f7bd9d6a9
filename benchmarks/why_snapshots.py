"""Why snapshots of one run help influence functions: less chance of one network, or networks more like those of halves?

    python benchmarks/why_snapshots.py concrete-sgd --results lds --tables docs/lds

Halves of the rows, trained for the usual epochs, take half as many steps as the networks that are explained. An early
snapshot has taken as few: it may predict halves better because it resembles them. So the same halves are trained again
for half, once and twice as many epochs, and the snapshots of ten networks are held against each: one by one, all
together, and with the networks averaged, which leaves what snapshots do beyond averaging chance away. The error of a
snapshot's scores is what they differ by from the mean of the other networks' at the same step; how much errors of two
snapshots of one network have in common says how many networks a run is worth.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _lds_problems import PROBLEMS, Problem
from lds import make_truth

from sklearn_source import AttributionEnsemble, InfluenceFunctions
from sklearn_source.curvature import EKFAC, ExactGaussNewton
from sklearn_source.metrics import linear_datamodeling_difference, linear_datamodeling_score
from sklearn_source.retraining import Retraining, retrain_on_subsets
from sklearn_source.utils._random import seeded

CURVATURES = {"exact": ExactGaussNewton(max_rows=4096), "layers": EKFAC()}
N_SNAPSHOTS = 16
N_BOOTSTRAP = 100


def scores_of_snapshots(problem: Problem, folder: Path, kind: str, n_networks: int) -> np.ndarray:
    """Return scores (n_networks, n_snapshots, n_query, n_train), kept in a folder."""
    every = []
    for seed in range(n_networks):
        kept = folder / f"snapshots_{kind}_{seed}.npy"
        if not kept.exists():
            with seeded(seed):
                net = problem.make_net(N_SNAPSHOTS).fit(problem.X_train, problem.y_train)
            method = InfluenceFunctions(curvature=CURVATURES[kind], measurement=problem.measurement, random_state=0)
            est = AttributionEnsemble(method, members="snapshots", random_state=0)
            est.fit(net, problem.X_train, problem.y_train)
            np.save(kept, np.stack([m.transform(problem.X_query, problem.y_query) for m in est.members_]))
        every.append(np.load(kept))
    return np.stack(every)


def truth_of_epochs(problem: Problem, usual: Retraining, folder: Path, factor: float, n_repeats: int) -> Retraining:
    """Return the truth's halves trained for other epochs."""
    path = folder / f"halves_{factor:g}.npz"
    if not path.exists():
        net = problem.make_net(None)
        net.set_params(max_epochs=round(net.max_epochs * factor))
        retrain_on_subsets(
            net, problem.X_train, problem.y_train, problem.X_query, problem.y_query, subsets=usual.masks,
            n_repeats=n_repeats, measurement=problem.measurement, random_state=1, verbose=1,
        ).save(path)  # fmt: skip
    return Retraining.load(path)


def mean_score(every: Any, truth: Retraining) -> float:
    """Mean linear datamodeling score of several scores."""
    return float(np.mean([linear_datamodeling_score(s, truth, n_bootstrap=2).score for s in every]))


def gain(every: np.ndarray, others: np.ndarray, truth: Retraining) -> str:
    """Mean difference of pairs of scores, with the mean ends of its intervals."""
    found = [linear_datamodeling_difference(a, b, truth, n_bootstrap=N_BOOTSTRAP) for a, b in zip(every, others)]
    more, low, high = np.mean([(d.difference, *d.interval) for d in found], axis=0)
    return f"{more:+.3f} [{low:+.3f}, {high:+.3f}]"


def by_numbers(kind: str, scores: np.ndarray, truth: Retraining) -> list[tuple[Any, ...]]:
    """Return lines of the scores of some snapshots of some networks; of one network means over all that there are."""
    lines = []
    for n_snapshots in (1, 4, 8, 16):
        steps = np.linspace(0, scores.shape[1], n_snapshots + 1).round().astype(int)[1:] - 1
        chosen = scores[:, steps].mean(axis=1)
        for n_networks in (1, 3, 5, 10):
            means = chosen if n_networks == 1 else [chosen[:n_networks].mean(axis=0)]
            judged = [linear_datamodeling_score(s, truth, n_bootstrap=N_BOOTSTRAP) for s in means]
            score, low, high, slope = np.mean([(r.score, *r.interval, r.slope) for r in judged], axis=0)
            lines.append((kind, n_snapshots, n_networks, f"{score:.3f} [{low:.3f}, {high:.3f}]", f"{slope:.2f}"))
    return lines


def errors_in_common(scores: np.ndarray) -> np.ndarray:
    """Correlations (n_snapshots, n_snapshots) of the errors of two snapshots of one network, a mean over networks."""
    n = len(scores)
    errors = (scores - scores.mean(axis=0)) * n / (n - 1)  # against the mean of the others
    errors = errors.reshape(*errors.shape[:2], -1)
    errors -= errors.mean(axis=2, keepdims=True)
    return np.mean([np.corrcoef(e) for e in errors], axis=0)


def write(path: Path, rows: list[tuple[Any, ...]]) -> None:
    """Print rows and put them into a table."""
    for row in rows:
        print(" | ".join(str(value) for value in row), flush=True)
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problem", choices=list(PROBLEMS))
    parser.add_argument("--n-networks", type=int, default=10)
    parser.add_argument("--n-repeats", type=int, default=10)
    parser.add_argument("--mnist", type=Path, help="folder of the files of MNIST")
    parser.add_argument("--results", type=Path, default=Path("lds"), help="where truths and scores are kept")
    parser.add_argument("--tables", type=Path, default=Path("."), help="where to write the tables")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    problem = PROBLEMS[args.problem](args.mnist)
    folder = args.results / args.problem / "why"
    folder.mkdir(parents=True, exist_ok=True)
    usual = make_truth(problem, args.results / args.problem)
    truths = {f: truth_of_epochs(problem, usual, folder, f, args.n_repeats) for f in (0.5, 1.0, 2.0)}
    summary: list[tuple[Any, ...]] = [
        ("curvature", "steps of halves / of all rows", "ceiling", "last, one network", "16 snapshots, one network",
         "gain", f"last, {args.n_networks} networks", f"16 snapshots, {args.n_networks} networks", "gain of these")
    ]  # fmt: skip
    positions: list[tuple[Any, ...]] = [("curvature", "steps of halves / of all rows", "snapshot", "one", "averaged")]
    shared: list[tuple[Any, ...]] = [("curvature", "snapshots apart", "correlation of errors")]
    numbers_of: list[tuple[Any, ...]] = [("curvature", "snapshots", "networks", "score", "slope")]
    for kind in CURVATURES:
        scores = scores_of_snapshots(problem, folder, kind, args.n_networks)
        numbers_of += by_numbers(kind, scores, usual)
        last, together = scores[:, -1], scores.mean(axis=1)
        for factor, truth in truths.items():
            ceiling = linear_datamodeling_score(last[0], truth, n_bootstrap=2).ceiling
            means = last.mean(axis=0)[None], together.mean(axis=0)[None]
            numbers = [f"{mean_score(s, truth):.3f}" for s in (last, together, *means)]
            summary.append(
                (kind, f"{factor / 2:g}", f"{ceiling:.3f}", *numbers[:2], gain(together, last, truth),
                 *numbers[2:], gain(means[1], means[0], truth))
            )  # fmt: skip
            for c in range(scores.shape[1]):
                own = scores[:, c]
                one, averaged = mean_score(own, truth), mean_score(own.mean(axis=0)[None], truth)
                positions.append((kind, f"{factor / 2:g}", c + 1, f"{one:.3f}", f"{averaged:.3f}"))
        common = errors_in_common(scores)
        for apart in range(scores.shape[1]):
            shared.append((kind, apart, f"{np.diagonal(common, apart).mean():.3f}"))
        print(f"{kind}: a run's errors are those of {len(common) ** 2 / common.sum():.1f} independent networks")
    for name, rows in (("", summary), ("-positions", positions), ("-errors", shared), ("-numbers", numbers_of)):
        write(args.tables / f"why-snapshots{name}.csv", rows)


if __name__ == "__main__":
    main()
