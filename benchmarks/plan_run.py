"""What a run of SOURCE (or, with one checkpoint, of influence functions) takes before it is started.

::

    python benchmarks/plan_run.py --rows 1000000 --queries 1000 --layers 784x256,256x256,256x10 --checkpoints 6 \
        --segments 3 --machines 4 --cores 16
    python benchmarks/plan_run.py --check        # three sizes, run on one thread, against what was planned for them
    python benchmarks/plan_run.py --speed-up     # two workers against one

A layer is IN x OUT or IN x OUT x POSITIONS (a convolution's windows, tokens). Counted are the operations of EK-FAC's
products of matrices, and the numbers that pass through everything else. What these take, ``SHARE`` and
``NS_PER_NUMBER``, was read off one size (``--calibrate``) that is none of the three.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import _common  # noqa: F401  before torch: denormals
import joblib
import numpy as np
import torch
from skorch import NeuralNetClassifier

from sklearn_source import SourceAttribution, TrajectoryRecorder, get_config
from sklearn_source.curvature import EKFAC
from sklearn_source.modules import MLP

SHARE = 0.9  # of the rate of a large product of matrices
NS_PER_NUMBER = {"covariances": 4.0, "eigenvalues": 4.0, "coupling": 4.0, "vectors": 10.0, "scores": 10.0}
N_COUPLED = 1024  # Fisher columns that layers are coupled by
SIZE = 4  # bytes of a number


@dataclass(frozen=True)
class Layer:
    """A matrix (n_out, n_in), the bias a column of it, that every row meets at some positions."""

    n_in: int
    n_out: int
    positions: int = 1

    @classmethod
    def read(cls, text: str) -> Layer:
        """From ``784x256`` or ``64x128x1024``."""
        n_in, *rest = map(int, text.split("x"))
        return cls(n_in + 1, *rest)

    @property
    def size(self) -> int:
        """Numbers in it."""
        return self.n_in * self.n_out

    @property
    def product(self) -> int:
        """Operations of the layer for one row."""
        return 2 * self.size * self.positions


@dataclass(frozen=True)
class Run:
    """What is asked for."""

    rows: int
    queries: int
    layers: tuple[Layer, ...]
    checkpoints: int = 1
    segments: int = 1
    columns: int = 10  # Fisher columns of a row: outputs, or draws
    workers: int = 1
    row_bytes: int | None = None  # of a row of X; None: the width of the first layer
    budget: int = 2 * 2**30
    cache: int = 1024 * 2**20

    @property
    def n_parameters(self) -> int:
        """Numbers in all layers."""
        return sum(layer.size for layer in self.layers)

    @property
    def data_bytes(self) -> int:
        """Of all rows."""
        return self.rows * (self.row_bytes or SIZE * self.layers[0].n_in * self.layers[0].positions)

    @property
    def chunks(self) -> int:
        """Passes over the rows that the queries make, by the budget for their vectors."""
        functions = self.n_parameters + len(self.layers) * N_COUPLED
        return math.ceil(self.queries * SIZE * ((self.segments + 2) * self.n_parameters + functions) / self.budget)

    @property
    def is_cached(self) -> bool:
        """Whether per-row gradients are kept for the second pass: one worker alone has both."""
        held = sum(layer.positions * (layer.n_in + self.columns * layer.n_out) for layer in self.layers)
        return self.workers == 1 and SIZE * held * self.rows * self.checkpoints <= self.cache * self.segments


@dataclass(frozen=True)
class Step:
    """A part of the run: operations, and bytes that go to a worker and come back from all of them."""

    name: str
    shared: bool
    passes: float
    flops: float
    numbers: float
    to_worker: float = 0.0
    back: float = 0.0


def plan(run: Run) -> list[Step]:
    """The steps of a run, in order."""
    layers, P, N, C, K = run.layers, run.n_parameters, run.rows, run.checkpoints, run.columns
    forward = sum(layer.product for layer in layers)
    backward = forward - layers[0].product  # what goes into the network has no gradient
    sides = [(layer.n_in, layer.n_out, layer.positions) for layer in layers]
    squares = sum(2 * t * (n_in**2 + K * n_out**2) for n_in, n_out, t in sides)
    entries = sum((2 if t == 1 else (2 * t + 3) * K) * n_in * n_out for n_in, n_out, t in sides)
    rotated = sum(2 * n_in * n_out * (n_in + n_out) for n_in, n_out, _ in sides)  # a vector into another basis
    sides_turned = sum(2 * t * (n_in**2 + n_out**2) for n_in, n_out, t in sides)  # a row's gradient, by its factors
    moments = 2 * SIZE * sum(n_in**2 + n_out**2 for n_in, n_out, _ in sides)
    weights, gradients = SIZE * P, forward + K * backward
    held, met = (sum(t * (n_in + k * n_out) for n_in, n_out, t in sides) for k in (K, 1))
    again = 0 if run.is_cached else gradients
    blocks = 4 * run.workers if run.workers > 1 else 0
    return [
        Step(
            "covariances", True, C, C * N * (gradients + squares), C * N * held,
            C * (weights + run.data_bytes), C * blocks * moments,
        ),
        # In float64, at half the rate.
        Step("bases", False, 0, run.segments * sum(2 * 9 * (i**3 + o**3) for i, o, _ in sides), 0),
        Step(
            "eigenvalues", True, 0 if run.is_cached else C, C * N * (again + squares + entries), C * N * held,
            C * (2 * weights + run.data_bytes), C * blocks * 2 * weights,
        ),
        Step(
            "coupling", True, C, C * N * forward + run.segments * N_COUPLED * (forward + backward + sides_turned),
            C * N * met,
            C * (weights + run.data_bytes),
        ),
        Step(
            "vectors", False, 0,
            run.queries * (forward + backward + run.segments * (2 * rotated + 3 * 2 * N_COUPLED * P)),
            run.queries * run.segments * P,
        ),
        Step(
            "scores", True, run.chunks * C,
            N * (run.chunks * C * (forward + backward) + 2.0 * run.queries * run.segments * P),
            N * (run.chunks * C * met + run.queries * run.segments * len(layers)),
            run.chunks * (run.data_bytes + C * weights) + SIZE * run.queries * run.segments * P,
            SIZE * run.queries * N if run.workers > 1 else 0,
        ),
    ]  # fmt: skip


def seconds(step: Step, rate: float, workers: int) -> float:
    """Of a step at ``rate`` operations per second and worker."""
    whole = step.flops / (SHARE * rate) + 1e-9 * NS_PER_NUMBER.get(step.name, 0.0) * step.numbers
    return whole / (workers if step.shared else 1)


def gemm_rate(n: int = 1024, repeats: int = 9) -> float:
    """Operations per CPU second of a square product in float32 on one thread: the median."""
    left, right, out = torch.randn(n, n), torch.randn(n, n), torch.empty(n, n)
    torch.mm(left, right, out=out)
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        torch.mm(left, right, out=out)
        taken.append(time.process_time() - start)
    return 2.0 * n**3 / float(np.median(taken))


def problem(run: Run, seed: int = 0):
    """A trained classifier of these layers, its rows and queries."""
    rng = np.random.default_rng(seed)
    widths = [layer.n_out for layer in run.layers]
    X = rng.normal(size=(run.rows, run.layers[0].n_in - 1)).astype(np.float32)
    y = (X @ rng.normal(size=(X.shape[1], widths[-1]))).argmax(1).astype(np.int64)
    y[: len(y) // 10] = rng.integers(widths[-1], size=len(y) // 10)
    torch.manual_seed(seed)
    net = NeuralNetClassifier(
        MLP, module__n_features=X.shape[1], module__hidden=tuple(widths[:-1]), module__n_outputs=widths[-1],
        criterion=torch.nn.CrossEntropyLoss, optimizer=torch.optim.SGD, lr=0.05, batch_size=256, max_epochs=4,
        train_split=None, verbose=0, callbacks=[TrajectoryRecorder(n_checkpoints=run.checkpoints)],
    )  # fmt: skip
    return net.fit(X, y), X, y, X[: run.queries] + 0.1


def cpu_of(pids) -> float:
    """Seconds of processor time of other processes."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def pid_of_worker():
    """Takes long enough for another worker to be asked the next time; after it, the package is imported there."""
    import sklearn_source  # noqa: F401

    time.sleep(1.0)
    return os.getpid()


def measured(run: Run, n_jobs: int = 1):
    """Checkpoints used, clocks of ``fit`` and of ``transform`` with the processor time of workers, and the scores."""
    net, X, y, queries = problem(run)
    est = SourceAttribution(n_segments=run.segments, curvature=EKFAC(fisher="exact"), random_state=0, n_jobs=n_jobs)
    workers: set[int] = set()
    if n_jobs != 1:  # they are there before the clock starts
        workers = set(joblib.Parallel(n_jobs)(joblib.delayed(pid_of_worker)() for _ in range(4 * n_jobs)))

    def clocked(function, *args):
        before = cpu_of(workers)
        result, clock = _common.timed(function, *args)
        return result, _common.Clock(clock.wall, clock.cpu + cpu_of(workers) - before)

    est, fit = clocked(est.fit, net, X, y)
    scores, transform = clocked(est.transform, queries)
    return sum(len(segment.checkpoints) for segment in est.segments_), fit, transform, scores


def show(run: Run, rate: float, bandwidth: float) -> None:
    """Print the plan."""
    print(f"{run.n_parameters:,} parameters, {run.chunks} chunks of queries, {run.workers} workers")
    print("step         passes  TFLOP    GB to a worker  GB back  hours")
    total = 0.0
    for step in plan(run):
        # All workers of a machine read what is sent to it once; machines are sent to side by side.
        hours = seconds(step, rate, run.workers) / 3600
        if run.workers > 1:
            hours += (step.to_worker + step.back) / bandwidth / 3600
        total += hours
        print(
            f"{step.name:12} {step.passes:6.0f}  {step.flops / 1e12:7.3g}  {step.to_worker / 1e9:14.3g}  "
            f"{step.back / 1e9:7.3g}  {hours:.3g}"
        )
    print(f"total {total:.3g} hours at {rate / 1e9:.0f} GFLOP/s a worker, {bandwidth / 1e9:.1f} GB/s")


# Rows, queries, layers, checkpoints asked for, segments. The first is what NS_PER_NUMBER was read off, the others not.
CALIBRATION = (3000, 100, "200x128,128x128,128x10", 4, 2)
SIZES = [
    (2000, 80, "96x80,80x80,80x10", 4, 2),
    (5000, 150, "500x300,300x300,300x10", 4, 2),
    (12000, 60, "128x512,512x512,512x10", 4, 1),
]


def run_of(rows, queries, layers, checkpoints, segments, **options):
    """A :class:`Run` from its parts."""
    read = tuple(Layer.read(part) for part in layers.split(","))
    return Run(rows, queries, read, checkpoints, segments, read[-1].n_out, **options)


def compare(size):
    """Planned and measured CPU seconds of ``fit`` and ``transform`` on one thread."""
    run = run_of(*size)
    rate = gemm_rate()
    n_checkpoints, fit, transform, _ = measured(run)
    run = replace(run, checkpoints=n_checkpoints)
    parts = {step.name: seconds(step, rate, 1) for step in plan(run)}
    late = parts["vectors"] + parts["scores"]
    return {
        "rate": rate, "checkpoints": n_checkpoints, "fit": (sum(parts.values()) - late, fit.cpu),
        "transform": (late, transform.cpu), "parts": parts, "numbers": {s.name: s.numbers for s in plan(run)},
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--layers", default="784x256,256x256,256x10")
    parser.add_argument("--checkpoints", type=int, default=6)
    parser.add_argument("--segments", type=int, default=3)
    parser.add_argument("--columns", type=int, help="Fisher columns of a row; default: outputs, 1 above 16")
    parser.add_argument("--machines", type=int, default=1)
    parser.add_argument("--cores", type=int, default=1, help="workers of a machine, of one thread each")
    parser.add_argument("--row-bytes", type=int, help="of a row of X; default: the first layer's inputs in float32")
    parser.add_argument("--gflops", type=float, help="of a large product, per core; default: measured here")
    parser.add_argument("--bandwidth", type=float, default=1.0, help="GB/s to and from a machine")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--speed-up", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.calibrate or args.check:
        for size in [CALIBRATION] if args.calibrate else SIZES:
            found = compare(size)
            for phase in ("fit", "transform"):
                planned, taken = found[phase]
                print(
                    f"{size}, {found['checkpoints']} checkpoints, {found['rate'] / 1e9:.0f} GFLOP/s: {phase} planned "
                    f"{planned:.2f} s, took {taken:.2f} s CPU, ratio {taken / planned:.2f}", flush=True
                )  # fmt: skip
            print({name: round(value, 3) for name, value in found["parts"].items()}, found["numbers"])
        return
    if args.speed_up:
        for size in SIZES[1:2]:
            one, two = (measured(run_of(*size), n) for n in (1, 2))
            off = np.abs(one[3] - two[3]).max() / np.abs(one[3]).max()
            for name, first, second in (("fit", one[1], two[1]), ("transform", one[2], two[2])):
                print(
                    f"{size} {name}: one worker {first.wall:.1f} s, CPU / wall {first.cpu / first.wall:.2f}; two "
                    f"{second.wall:.1f} s, CPU / wall {second.cpu / second.wall:.2f}, CPU {second.cpu / first.cpu:.2f} "
                    f"of one's; largest difference of scores {off:.0e}", flush=True
                )  # fmt: skip
        return
    rate = args.gflops * 1e9 if args.gflops else gemm_rate()
    layers = tuple(Layer.read(part) for part in args.layers.split(","))
    columns = args.columns or (layers[-1].n_out if layers[-1].n_out <= 16 else 1)
    run = Run(
        args.rows, args.queries, layers, args.checkpoints, args.segments, columns, args.machines * args.cores,
        args.row_bytes, get_config()["memory_budget"],
    )  # fmt: skip
    show(run, rate, args.bandwidth * 1e9)


if __name__ == "__main__":
    main()
