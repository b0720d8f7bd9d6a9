"""Predicted against confirmed effects of ten actions on the training rows of digits, Concrete and questions.

    python benchmarks/actions.py digits concrete questions --seeds 0 --steps damped full --results FOLDER

Ten actions, chosen by a rule that is the same for every task and was fixed before anything was measured
(:func:`actions`), on data with a planted cause of errors (wrong targets of a cluster, as in ``behaviour_groups.py``).
Each is predicted by ``predict_action`` of one network, by every ``step`` asked for, then networks are trained with it
and without, once for all steps. Appends one line an action, step and quantity to ``actions.csv``, with the CPU seconds
of the prediction; then prints for each quantity and step the slope of confirmed on predicted through the origin, with
an interval from drawing the actions anew, the share of signs that are right, of all actions and of those whose
confirmed effect is beyond two of its standard errors, and the root mean square of confirmed less predicted.
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
from sklearn_source.base import keep_refits
from sklearn_source.curvature import EKFAC
from sklearn_source.inspection import behaviour_groups, predict_action

COLUMNS = ("data", "seed", "step", "action", "n_rows", "quantity", "predicted", "confirmed", "predicted_error",
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


def measure(data: str, seed: int, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Predict and confirm the actions of a task; networks without an action are those of other actions too."""
    planted: Planted = PROBLEMS[data]("mislabelled", seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = planted.net.fit(planted.X_train, planted.y_train)
    curvature = EKFAC() if asked.max_rows is None else EKFAC(max_rows=asked.max_rows)
    est = SnapshotInfluence(curvature=curvature, random_state=0).fit(net, planted.X_train, planted.y_train)
    lines, chosen = [], actions(planted, est, planted.y_true)
    predicted = {step: ([], []) for step in asked.steps}
    with keep_refits():
        for _, action, rows, options in chosen:
            for step, (effects, seconds) in predicted.items():
                start = time.process_time()
                own = dict(options, step=step)
                effects.append(predict_action(est, action, rows, planted.X_query, planted.y_query, **own))
                seconds.append(time.process_time() - start)
    for number, (name, _, rows, _) in enumerate(chosen):
        for step, (effects, seconds) in predicted.items():
            confirmed = effects[number].confirm(
                n_repeats=asked.repeats, random_state=seed + 1000, as_frame=False, cache=asked.results / "networks"
            )
            for quantity, change, retrained, own, error in confirmed.table.tolist():
                lines.append(
                    dict(zip(COLUMNS, (data, seed, step, name, len(rows), quantity, f"{change:.5g}",
                                       f"{retrained:.5g}", f"{own:.3g}", f"{error:.3g}", asked.repeats,
                                       f"{seconds[number]:.1f}")))
                )  # fmt: skip
                print(*lines[-1].values(), flush=True)
    return lines


def summary(lines: list[dict[str, Any]]) -> None:
    """Print slopes, intervals and signs for each task, quantity and step."""
    for data, quantity, step in sorted({(line["data"], line["quantity"], line["step"]) for line in lines}):
        own = [line for line in lines if (line["data"], line["quantity"], line["step"]) == (data, quantity, step)]
        x, y, error = (
            np.array([float(line[name]) for line in own]) for name in ("predicted", "confirmed", "confirmed_error")
        )
        drawn = np.random.default_rng(0).integers(len(x), size=(2000, len(x)))
        slopes = (x[drawn] * y[drawn]).sum(1) / np.maximum((x[drawn] ** 2).sum(1), 1e-300)
        low, high = np.percentile(slopes, [2.5, 97.5])
        sure = np.abs(y) > 2 * error
        right = np.sign(x) == np.sign(y)
        print(
            f"{data:10} {quantity:12} {step:7} slope {x @ y / (x @ x):.2f} [{low:.2f}, {high:.2f}], correlation "
            f"{np.corrcoef(x, y)[0, 1]:.2f}, signs right {right.sum()} of {len(x)}, of sure ones "
            f"{right[sure].sum()} of {sure.sum()}, error {np.sqrt(np.mean((x - y) ** 2)):.3g}"
        )


def main() -> None:
    """Measure what is asked for and not there yet, and sum up what is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", choices=list(PROBLEMS))
    parser.add_argument("--seeds", default="0-0", help="first-last")
    parser.add_argument("--steps", nargs="+", choices=("damped", "full"), default=["damped"])
    parser.add_argument("--max-rows", type=int, help="Fisher columns that a refit solves with; default: the package's")
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
            lines = measure(data, seed, asked)
            with path.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, COLUMNS).writerows(lines)
            known += lines
    summary([line for line in known if line["data"] in asked.data])


if __name__ == "__main__":
    main()
