"""What is asked of removed groups and what became of it: measurements, and tables of slopes with intervals."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _lds_problems import Problem
from numpy.typing import NDArray

from sklearn_source.metrics import group_effect_score
from sklearn_source.retraining import Retraining


def log_odds_or_logit(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Log-odds of class ``target``, and the logit of class ``target - n_classes`` where it is above all classes."""
    n_classes = output.shape[1]
    own = (target % n_classes)[:, None]
    logit = output.gather(1, own)[:, 0]
    others = output.scatter(1, own, -torch.inf).logsumexp(1)
    return torch.where(target < n_classes, logit - others, logit)


log_odds_or_logit.needs_y = True  # type: ignore[attr-defined]


class Question:
    """The queries of a problem, each once for everything that is measured of it."""

    def __init__(self, problem: Problem, n_query: int) -> None:
        self.n_query, self.X = n_query, problem.X_query[:n_query]
        self.y, self.measurement = None, problem.measurement
        if problem.y_query is not None:
            y = problem.y_query[:n_query]
            self.X, self.y = np.concatenate([self.X, self.X]), np.concatenate([y, y + problem.y_train.max() + 1])
            self.measurement = log_odds_or_logit

    def views(self, changes: NDArray, before: NDArray) -> dict[str, NDArray]:
        """Return changes (..., n_query) by what is measured, from those of all queries and what they were before."""
        if self.y is None:
            return {"prediction": changes}
        (odds, logits), start = np.split(changes, 2, axis=-1), np.split(before, 2, axis=-1)[0]
        return {"log-odds": odds, "logit": logits, "probability": _sigmoid(start + odds) - _sigmoid(start)}


def _sigmoid(z: NDArray) -> NDArray:
    return (1 + np.tanh(z / 2)) / 2


class Table:
    """A line for every method, way and number of networks; a file for everything that is measured.

    Lines are printed and written as each is ready.
    """

    def __init__(self, question: Question, truth: Retraining, shares: Sequence[float], path: Path | None) -> None:
        self.question, self.truth, self.n_sizes, self.path = question, truth, len(shares), path
        sizes = [f"top {100 * share:g} %" for share in shares]
        self.header = ("predicted by", "networks", *sizes, "all top", "r", "random", "r of random")
        self.rows: dict[str, list[tuple[str, ...]]] = {}

    def add(self, name: str, changes: list[tuple[NDArray, NDArray]]) -> None:
        """Add lines for a method, by changes and what they start from, of every network."""
        every = [self.question.views(*one) for one in changes]
        for measured, retrained in self._retrained(self.truth.outputs).items():
            own = [one[measured] for one in every]
            self._add_line(measured, name, "one", own, retrained)
            if len(own) > 1:
                self._add_line(measured, name, f"mean of {len(own)}", [np.mean(own, axis=0)], retrained)

    def add_retraining(self) -> None:
        """Add what one half of the repeats says of the other."""
        half = self.truth.n_repeats // 2
        if not half:
            return
        first, second = (self._retrained(part) for part in (self.truth.outputs[:, :half], self.truth.outputs[:, half:]))
        for measured, outputs in second.items():
            changes = (first[measured] - first[measured][:1]).mean(axis=1)[1:]
            self._add_line(measured, "retraining", f"mean of {half}", [changes], outputs)

    def _retrained(self, outputs: NDArray) -> dict[str, NDArray]:
        """Outputs of networks (n_subsets, n_repeats, n_query) by what is measured, give or take a constant."""
        return self.question.views(outputs, np.zeros(outputs.shape[-1]))

    def _add_line(self, measured: str, name: str, networks: str, found: list[NDArray], outputs: NDArray) -> None:
        seeds = self.truth.seeds[:, : outputs.shape[1]]
        truth = Retraining(self.truth.masks, outputs, measured, seeds, names=self.truth.names)
        results = [group_effect_score(None, truth, predicted=own) for own in found]
        rows = self.rows.setdefault(measured, [self.header])
        rows.append((name, networks, *self._cells(results)))
        print(f"{measured} | " + " | ".join(rows[-1]), flush=True)
        if self.path is not None:
            first = measured == next(iter(self.rows))
            path = self.path if first else self.path.with_stem(f"{self.path.stem}-{measured}")
            with path.open("w", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(rows)

    def _cells(self, results: list[Any]) -> Iterator[str]:
        """Slopes with intervals and correlations, means over networks."""
        for i in range(self.n_sizes):
            yield _mean([(r.by_size.slope[i], *r.by_size.slope_interval[i]) for r in results])
        for part in (results, [r.random for r in results]):
            yield _mean([(r.slope, *r.slope_interval) for r in part])
            yield f"{np.mean([r.correlation for r in part]):.2f}"


def _mean(found: list[tuple[float, float, float]]) -> str:
    value, low, high = (f"{v:.2f}" for v in np.mean(found, axis=0))
    return f"{value} [{low}, {high}]"


def write_summary(folder: Path, problems: Sequence[str]) -> None:
    """Write the slopes of all top groups, and of random ones, of every problem that has a table, beside each other."""
    tables = {}
    for name in problems:
        path = folder / f"top-groups-{name}.csv"
        if path.exists():
            with path.open(newline="") as file:
                own = list(csv.DictReader(file))
            tables[name] = {
                (row["predicted by"], row["networks"].split()[0]): f"{row['all top']}; {row['random']}" for row in own
            }
    keys = list(dict.fromkeys(key for table in tables.values() for key in table))
    rows = [(*key, *(table.get(key, "") for table in tables.values())) for key in keys]
    with (folder / "top-groups.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("predicted by", "networks", *tables), *rows])
