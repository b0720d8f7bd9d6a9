"""Predicted against confirmed effects of ten actions on the training rows of digits, Concrete and questions.

    python benchmarks/actions.py digits concrete questions --seeds 0 --results FOLDER

Ten actions, chosen by a rule that is the same for every task and was fixed before anything was measured
(:func:`actions`), on data with a planted cause of errors (wrong targets of a cluster, as in ``behaviour_groups.py``).
Each is predicted by ``predict_action`` of one network, then networks are trained with it and without. Appends one line
an action and quantity to ``actions.csv``; then prints for each quantity the slope of confirmed on predicted through the
origin, with an interval from drawing the actions anew, and the share of signs that are right, of all actions and of
those whose confirmed effect is beyond two of its standard errors.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _planted_causes import PROBLEMS, Planted

from sklearn_source import SnapshotInfluence
from sklearn_source.inspection import behaviour_groups, predict_action

COLUMNS = ("data", "seed", "action", "n_rows", "quantity", "predicted", "confirmed", "predicted_error",
           "confirmed_error", "n_repeats", "seconds")  # fmt: skip


def actions(planted: Planted, est: Any, truth: np.ndarray) -> list[tuple[str, str, np.ndarray, dict[str, Any]]]:
    """Ten actions: (name, action, rows, options), by groups, by the planted rows, and by harm to all errors."""
    found = behaviour_groups(est, planted.X_query, planted.y_query, alpha=1.0, random_state=0)
    scores = est.transform(planted.X_query[found.errors], planted.y_query[found.errors]).astype(np.float64)
    towards = -scores  # the right class less likely
    if scores.ndim == 2 and planted.y_query.dtype.kind == "f":
        residual = est.net_.predict(planted.X_query)[:, 0] - planted.y_query[:, 0]
        towards = np.sign(residual[found.errors])[:, None] * scores
    order = np.argsort(-towards.sum(axis=0), kind="stable")
    n = len(order)
    two, five = max(1, n // 50), max(1, n // 20)
    return [
        *((f"remove group {i}", "remove", found[i].rows, {}) for i in range(3)),
        ("remove planted", "remove", planted.rows, {}),
        ("mend planted", "relabel", planted.rows, {"labels": truth[planted.rows]}),
        ("remove 2 % towards errors", "remove", order[:two], {}),
        ("remove 5 % towards errors", "remove", order[:five], {}),
        ("remove 5 % away from errors", "remove", order[-five:], {}),
        ("copy 5 % away from errors", "reweight", order[-five:], {}),
        ("copy 5 % towards errors", "reweight", order[:five], {}),
    ]


def measure(data: str, seed: int, n_repeats: int, cache: Path) -> list[dict[str, Any]]:
    """Predict and confirm the actions of a task; networks without an action are those of other actions too."""
    planted: Planted = PROBLEMS[data]("mislabelled", seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = planted.net.fit(planted.X_train, planted.y_train)
    est = SnapshotInfluence(random_state=0).fit(net, planted.X_train, planted.y_train)
    lines = []
    for name, action, rows, options in actions(planted, est, planted.y_true):
        start = time.perf_counter()
        effect = predict_action(est, action, rows, planted.X_query, planted.y_query, **options)
        confirmed = effect.confirm(n_repeats=n_repeats, random_state=seed + 1000, as_frame=False, cache=cache)
        seconds = time.perf_counter() - start
        for quantity, predicted, retrained, own, error in confirmed.table.tolist():
            lines.append(
                dict(zip(COLUMNS, (data, seed, name, len(rows), quantity, f"{predicted:.5g}", f"{retrained:.5g}",
                                   f"{own:.3g}", f"{error:.3g}", n_repeats, f"{seconds:.0f}")))
            )  # fmt: skip
            print(*lines[-1].values(), flush=True)
    return lines


def summary(lines: list[dict[str, Any]]) -> None:
    """Print slopes, intervals and signs for each task and quantity."""
    for data, quantity in dict.fromkeys((line["data"], line["quantity"]) for line in lines):
        own = [line for line in lines if (line["data"], line["quantity"]) == (data, quantity)]
        x, y, error = (
            np.array([float(line[name]) for line in own]) for name in ("predicted", "confirmed", "confirmed_error")
        )
        drawn = np.random.default_rng(0).integers(len(x), size=(2000, len(x)))
        slopes = (x[drawn] * y[drawn]).sum(1) / np.maximum((x[drawn] ** 2).sum(1), 1e-300)
        low, high = np.percentile(slopes, [2.5, 97.5])
        sure = np.abs(y) > 2 * error
        right = np.sign(x) == np.sign(y)
        print(
            f"{data:10} {quantity:12} slope {x @ y / (x @ x):.2f} [{low:.2f}, {high:.2f}], correlation "
            f"{np.corrcoef(x, y)[0, 1]:.2f}, signs right {right.sum()} of {len(x)}, of sure ones "
            f"{right[sure].sum()} of {sure.sum()}"
        )


def main() -> None:
    """Measure what is asked for and not there yet, and sum up what is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", choices=list(PROBLEMS))
    parser.add_argument("--seeds", default="0-0", help="first-last")
    parser.add_argument("--repeats", type=int, default=5, help="networks with an action, and without")
    parser.add_argument("--results", type=Path, default=Path("."))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    first, last = map(int, asked.seeds.split("-")) if "-" in asked.seeds else (int(asked.seeds), int(asked.seeds))
    path = asked.results / "actions.csv"
    if not path.exists():
        path.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    with path.open(encoding="utf-8") as file:
        known = list(csv.DictReader(file))
    for seed in range(first, last + 1):
        for data in asked.data:
            if any((line["data"], int(line["seed"])) == (data, seed) for line in known):
                continue
            lines = measure(data, seed, asked.repeats, asked.results / "networks")
            with path.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, COLUMNS).writerows(lines)
            known += lines
    summary([line for line in known if line["data"] in asked.data])


if __name__ == "__main__":
    main()
