"""Memory and processor time of the public calls by number of training rows, queries and parameters.

A small MLP is trained and recorded in a process per size; every call runs in a fork of it, after the same call was made
there on a few rows. Printed is by how much the fork's own memory (anonymous pages, looked at every 5 ms) rose above
what it was before the call, results included, and the processor seconds of one thread; then how both grow: exponents
are least-squares slopes of logarithms. The training rows lie in memory, but for "stream", whose batches come one by one
from a file.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import pickle
import shutil
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from skorch import NeuralNetClassifier

from sklearn_source import TRAK, InfluenceFunctions, SourceAttribution, TracIn, TrajectoryRecorder, config_context
from sklearn_source.curvature import EKFAC
from sklearn_source.inspection import (
    attribution_report,
    audit_training_rows,
    behaviour_groups,
    group_influence,
    segment_scores,
    under_sampled_regions,
)
from sklearn_source.modules import MLP

_MB = 2**20
_WARM = 300  # rows of the same call that is made before what is measured


class Stream:
    """Batches of rows from files of arrays."""

    def __init__(self, folder, size=1000):
        self.folder, self.size = folder, size

    def __iter__(self):
        X, y = (np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in "Xy")
        for start in range(0, len(X), self.size):
            yield np.array(X[start : start + self.size]), np.array(y[start : start + self.size])


class Case:
    """A trained net, its rows, queries, and a folder to write to."""

    def __init__(self, n_rows, n_queries, width, folder):
        rng = np.random.default_rng(0)
        self.X = rng.normal(size=(n_rows, 8)).astype(np.float32)
        self.y = (self.X[:, 0] + np.sin(2 * self.X[:, 1]) > 0).astype(np.int64) + (self.X[:, 2] * self.X[:, 3] > 0.3)
        self.Q = rng.normal(size=(n_queries, 8)).astype(np.float32)
        self.t = (self.Q[:, 0] + np.sin(2 * self.Q[:, 1]) > 0).astype(np.int64) + (self.Q[:, 2] * self.Q[:, 3] > 0.3)
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        np.save(folder / "X.npy", self.X)
        np.save(folder / "y.npy", self.y)
        torch.manual_seed(0)
        self.net = NeuralNetClassifier(
            MLP, module__n_outputs=3, module__hidden=(width,), optimizer=torch.optim.SGD,
            lr=0.1, batch_size=max(32, n_rows // 200), max_epochs=2, train_split=None, verbose=0,
            callbacks=[TrajectoryRecorder(n_checkpoints=3)], criterion=torch.nn.CrossEntropyLoss,
        )  # fmt: skip
        self.net.fit(self.X, self.y)
        self._fitted = {}

    def fitted(self, method):
        if method not in self._fitted:
            self._fitted[method] = _METHODS[method]().fit(self.net, self.X, self.y)
        return self._fitted[method]

    def clean(self):
        """Remove what the calls wrote."""
        if "influence" in self._fitted:
            self._fitted["influence"].store_gradients(None)
        for made in ("scores.npy", "scores.npy.progress.json"):
            (self.folder / made).unlink(missing_ok=True)
        shutil.rmtree(self.folder / "store", ignore_errors=True)

    @property
    def groups(self):
        rng = np.random.default_rng(1)
        return {str(i): rng.choice(len(self.X), len(self.X) // 100, replace=False) for i in range(5)}


_METHODS: dict[str, Callable] = {
    "influence": lambda: InfluenceFunctions(random_state=0),
    "SOURCE": lambda: SourceAttribution(n_segments=2, random_state=0),
    "TracIn": TracIn,
    "TRAK": lambda: TRAK(n_components=32, random_state=0),
}


def _fit(method):
    return None, lambda case: _METHODS[method]().fit(case.net, case.X, case.y)


def _on(method, call):
    return method, lambda case: call(case.fitted(method), case)


# What is fitted before, and what is measured.
CALLS: dict[str, tuple[str | None, Callable]] = {
    "net.fit, recorded": (None, lambda c: c.net.partial_fit(c.X, c.y)),
    "fit, influence": _fit("influence"),
    "fit, influence, cache_size=0": (
        None,
        lambda c: InfluenceFunctions(curvature=EKFAC(cache_size=0), random_state=0).fit(c.net, c.X, c.y),
    ),
    "fit, influence, stream": (None, lambda c: _METHODS["influence"]().fit(c.net, Stream(c.folder), None)),
    "fit, SOURCE": _fit("SOURCE"),
    "fit, TracIn": _fit("TracIn"),
    "fit, TRAK": _fit("TRAK"),
    "transform": _on("influence", lambda e, c: e.transform(c.Q)),
    "transform(out=file)": _on("influence", lambda e, c: e.transform(c.Q, out=c.folder / "scores.npy")),
    "transform(out=file), SOURCE": _on("SOURCE", lambda e, c: e.transform(c.Q, out=c.folder / "scores.npy")),
    "top_influences": _on("influence", lambda e, c: e.top_influences(c.Q, k=10)),
    "top_influences, SOURCE": _on("SOURCE", lambda e, c: e.top_influences(c.Q, k=10)),
    "top_influences, TRAK": _on("TRAK", lambda e, c: e.top_influences(c.Q, k=10)),
    "self_influence": _on("influence", lambda e, c: e.self_influence()),
    "store_gradients": _on("influence", lambda e, c: e.store_gradients(c.folder / "store")),
    "predict_reweighting": _on("influence", lambda e, c: e.predict_reweighting(c.Q, groups=c.groups)),
    "predict_relabeling": _on(
        "influence", lambda e, c: e.predict_relabeling(c.Q, y_train=(c.y + 1) % 3, groups=c.groups)
    ),
    "group_influence": _on("influence", lambda e, c: group_influence(e, c.Q, c.groups)),
    "segment_scores": _on("SOURCE", lambda e, c: segment_scores(e, c.Q)),
    "audit_training_rows": _on("influence", lambda e, c: audit_training_rows(e, c.X, c.y, X_query=c.Q, y_query=c.t)),
    "behaviour_groups": _on("influence", lambda e, c: behaviour_groups(e, c.Q, c.t, random_state=0)),
    "under_sampled_regions": _on("influence", lambda e, c: under_sampled_regions(e, c.Q, c.t, random_state=0)),
    "attribution_report": _on(
        "influence", lambda e, c: attribution_report(e, c.Q, c.t, X_train=c.X, y_train=c.y)._repr_html_()
    ),
}


def anonymous(pid):
    """Bytes of memory of a process that no file stands behind."""
    try:
        with open(f"/proc/{pid}/status") as file:
            return next((1024 * int(line.split()[1]) for line in file if line.startswith("RssAnon")), 0)
    except (FileNotFoundError, ProcessLookupError):
        return 0


def measured(call, case, budget):
    """(bytes above the start, processor seconds) of a call in a fork."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            with config_context(memory_budget=budget):
                start = time.process_time()
                os.write(writer, b"a")
                call(case)
                os.write(writer, pickle.dumps(time.process_time() - start))
                code = 0
        except BaseException as error:
            print("   ", type(error).__name__, str(error)[:300])
        finally:
            os._exit(code)
    os.close(writer)
    os.read(reader, 1)
    base, peak = anonymous(pid), 0
    while not os.waitpid(pid, os.WNOHANG)[0]:
        peak = max(peak, anonymous(pid) - base)
        time.sleep(0.005)
    said = os.read(reader, 1000)
    os.close(reader)
    return (peak, pickle.loads(said)) if said else (np.nan, np.nan)


def in_process(function, *args):
    """What a function returns, from a fork: its memory goes with it."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            with os.fdopen(writer, "wb") as file:
                pickle.dump(function(*args), file)
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        result = pickle.load(file)
    os.waitpid(pid, 0)
    return result


def measure(names, n_rows, n_queries, width, budget):
    """By name of a call (bytes, seconds)."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found = {}
    with tempfile.TemporaryDirectory() as folder, config_context(memory_budget=budget):
        warm, case = (Case(n, n_queries, width, Path(folder) / str(n)) for n in (_WARM, n_rows))
        for name in names:
            before, call = CALLS[name]
            for each in (warm, case):
                if before is not None:
                    each.fitted(before)
            if name != "net.fit, recorded":
                call(warm)
            found[name] = measured(call, case, budget)
            for each in (warm, case):
                each.clean()
            print(f"  {n_rows:9,} {name:30} {found[name][0] / _MB:8.1f} MB {found[name][1]:8.2f} s", flush=True)
    return found


def slope(sizes, values):
    """Least-squares slope of logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(values, 1e-3)), 1)[0])


def by_rows(args):
    names = [name for name in CALLS if not args.calls or any(part in name for part in args.calls)]
    sizes = [int(float(size)) for size in args.rows]
    found = {n: in_process(measure, names, n, args.queries, args.width, args.budget * _MB) for n in sizes}
    print(f"\nbudget {args.budget} MiB, MLP 8-{args.width}-3, {args.queries} queries")
    head = " | ".join(f"{n:,} rows" for n in sizes)
    print(f"| call | MB: {head} | bytes per row | s: {head} | exponent |")
    print("|---" * (2 * len(sizes) + 3) + "|")
    for name in names:
        memory, seconds = (np.array([found[n][name][i] for n in sizes]) for i in range(2))
        per_row = (memory[-1] - memory[-2]) / (sizes[-1] - sizes[-2]) if len(sizes) > 1 else np.nan
        columns = [*(f"{m / _MB:.1f}" for m in memory), f"{per_row:.0f}", *(f"{s:.2f}" for s in seconds)]
        print(f"| {name} | {' | '.join(columns)} | {slope(sizes[-2:], seconds[-2:]):.2f} |")


def by_other(args, what, sizes, names):
    """Growth of time with queries, or with parameters (8 w + w + 3 w + 3 for a width w)."""
    n_rows = int(float(args.rows[0]))
    print(f"\n{n_rows:,} rows, by {what}")
    found = {}
    for size in sizes:
        queries, width = (size, args.width) if what == "queries" else (args.queries, size)
        found[size] = in_process(measure, names, n_rows, queries, width, args.budget * _MB)
    scale = sizes if what == "queries" else [12 * width + 3 for width in sizes]
    print(f"| call | s: {' | '.join(f'{size:,} {what}' for size in scale)} | exponent | MB |")
    print("|---" * (len(sizes) + 3) + "|")
    for name in names:
        memory, seconds = ([found[size][name][i] for size in sizes] for i in range(2))
        shown = " | ".join(f"{s:.2f}" for s in seconds)
        print(f"| {name} | {shown} | {slope(scale[-2:], seconds[-2:]):.2f} | {memory[-1] / _MB:.0f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--by", choices=["rows", "queries", "parameters"], default="rows")
    parser.add_argument("--rows", nargs="+", default=["1e4", "1e5", "1e6"])
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--budget", type=int, default=256, help="memory_budget in MiB")
    parser.add_argument("--calls", nargs="*", help="parts of their names; default all")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.by == "rows":
        by_rows(args)
    elif args.by == "queries":
        by_other(args, "queries", [100, 1_000, 10_000], ["transform(out=file)", "top_influences"])
    else:
        names = ["fit, influence", "fit, SOURCE", "transform(out=file)", "self_influence"]
        by_other(args, "parameters", [32, 256, 2048], names)


if __name__ == "__main__":
    main()
