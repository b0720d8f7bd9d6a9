"""A store of training gradients: ``transform`` with and without it, its bytes, its error, and what it costs in LDS.

Per method: CPU seconds of ``transform`` over the training rows and from the store in one run on one thread (the least
of three, where they are short), the bytes of a full gradient (4 per parameter, row and checkpoint) against those of the
folder, relative error and rank correlation per query against the exact scores, and, with ``--truth``, how far the
linear datamodeling score moves, with its interval. ``--rows`` repeats the training rows with noise: the ratio grows
with their number.
``--schemes`` sets other ways to make gradients small beside it, their bytes in half precision: random signs into as
many buckets as a row's factors have numbers (SJLT), random Kronecker projections (LoGra), and the top eigen-directions
of a layer's inputs and output gradients.

    python benchmarks/gradient_store.py --problem concrete-sgd --truth truths/concrete-sgd
    python benchmarks/gradient_store.py --problem mnist --mnist FOLDER --rows 24576 --methods influence
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import timed
from _lds_problems import PROBLEMS, Problem
from lds import make_truth
from scipy.stats import rankdata
from sklearn.base import clone

from sklearn_source import InfluenceFunctions, SnapshotInfluence, SourceAttribution, TracIn
from sklearn_source.base import GradientAttribution
from sklearn_source.base._stored_gradients import _a_query, _summed
from sklearn_source.gradients.algebra import pack, unpack
from sklearn_source.metrics import linear_datamodeling_difference, linear_datamodeling_score

METHODS = {
    "influence": InfluenceFunctions(random_state=0),
    "source": SourceAttribution(random_state=0),
    "snapshots": SnapshotInfluence(n_snapshots=6, random_state=0),
    "tracin": TracIn(),
}
TOLERANCES = (None, 0.001, 0.01, 0.03)
LONG = 2.0  # CPU seconds of a call that is made once
HALF = 2  # bytes of a number in half precision
DIRECTIONS = (16, 32, 64, 128)


def errors(found: np.ndarray, exact: np.ndarray) -> tuple[float, float, float]:
    """Return the median and largest relative error of a query's scores, and the mean of their rank correlations."""
    off = np.linalg.norm(found - exact, axis=1) / np.linalg.norm(exact, axis=1)
    ranks = [np.corrcoef(rankdata(a), rankdata(b))[0, 1] for a, b in zip(found, exact)]
    return float(np.median(off)), float(off.max()), float(np.mean(ranks))


def fastest(function: Any, *args: Any) -> tuple[Any, float]:
    """Return the result, and the least CPU seconds of three calls, of a long one those of the only one."""
    found, clock = timed(function, *args)
    seconds = [clock.cpu]
    while len(seconds) < 3 and clock.cpu < LONG:
        seconds.append(timed(function, *args)[1].cpu)
    return np.asarray(found, dtype=np.float64), min(seconds)


def query_seconds(est: GradientAttribution, X: Any, y: Any) -> float:
    """Return the CPU seconds that the queries' side alone takes, with the training rows as they are met."""
    with est._exclusive():
        return timed(lambda: [None for _ in est._query_batches(X, y)[1]])[1].cpu


def repeated(problem: Problem, n_rows: int) -> Problem:
    """Return the problem with its training rows several times over, each time with other noise, in as many steps."""
    times, rng = max(1, round(n_rows / len(problem.X_train))), np.random.default_rng(0)
    X = np.concatenate([problem.X_train + 0.05 * rng.normal(size=problem.X_train.shape) for _ in range(times)])

    def make_net(n_checkpoints: int | None) -> Any:
        net = problem.make_net(n_checkpoints)
        return net.set_params(max_epochs=max(1, net.max_epochs // times))

    y = np.concatenate([problem.y_train] * times)
    return replace(problem, X_train=X.astype(problem.X_train.dtype), y_train=y, make_net=make_net)


def compare(problem: Problem, net: Any, names: list[str], tolerances: Any, truth: Any, folder: Path) -> None:
    """Print a table of the methods and tolerances."""
    X, y = problem.X_train, problem.y_train
    y_query = problem.y_query if problem.measurement == "neg_loss" else None
    for name in names:
        est = clone(METHODS[name]).set_params(measurement=problem.measurement).fit(net, X, y)
        exact, plain = fastest(est.transform, problem.X_query, y_query)
        terms = est._terms(_a_query(est))
        n_states = len({id(state) for term in terms for state in term.checkpoints})
        full = 4 * est._gradients.n_parameters * n_states * len(X)
        print(
            f"\n{problem.name}, {name}: {len(X)} rows, {len(exact)} queries, {est._gradients.n_parameters} parameters, "
            f"{n_states} checkpoints\n  over the rows {plain:.2f} s, of which queries "
            f"{query_seconds(est, problem.X_query, y_query):.2f} s; full gradients {full / 1e6:.0f} MB"
        )
        for tol in tolerances:
            _, writing = timed(est.store_gradients, folder / f"{name}-{tol}", tol=tol)
            found, seconds = fastest(est.transform, problem.X_query, y_query)
            size = est.gradient_store_.n_bytes
            median, largest, rank = errors(found, exact)
            line = (
                f"  tol={tol}: written in {writing.cpu:.2f} s, transform {seconds:.2f} s (queries "
                f"{query_seconds(est, problem.X_query, y_query):.2f}), x{plain / seconds:.1f}; {size / 1e6:.1f} MB, "
                f"x{full / size:.0f} less; error {median:.5f} (at most {largest:.4f}), rank correlation {rank:.5f}"
            )
            if truth is not None:
                before = linear_datamodeling_score(exact, truth, n_bootstrap=2).score
                lost = linear_datamodeling_difference(exact, found, truth, n_bootstrap=200)
                line += (
                    f"; LDS {before:.4f}, lost {lost.difference:.5f} [{lost.interval[0]:.5f}, {lost.interval[1]:.5f}]"
                )
            print(line, flush=True)
        est.store_gradients(None)


def projected(scheme: str, gradient: Any, k: int, number: int) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return the sides of a Kronecker projection of a block to ``k`` directions each."""
    _, out, inp = gradient.shape
    if scheme == "eigen-directions":
        moments = type(gradient).whole_moments([gradient], True, True)
        return tuple(torch.linalg.eigh(m.double())[1][..., -min(k, len(m[0])) :].float() for m in reversed(moments))
    generator, sides = torch.Generator().manual_seed(number), []
    for size in (out, inp):
        kept = min(k, size)
        basis = torch.linalg.qr(torch.randn(size, size, generator=generator))[0][:, :kept]
        sides.append(basis[None] * (size / kept) ** 0.5)
    return tuple(sides)


def schemes(problem: Problem, net: Any) -> Iterator[str]:
    """Yield lines: other schemes, for influence functions on a thousand rows."""
    est = clone(METHODS["influence"]).fit(net, problem.X_train, problem.y_train)
    n = min(1000, len(problem.X_train))
    exact = np.asarray(est.transform(problem.X_query)[:, :n], dtype=np.float64)
    with est._exclusive():
        rows = est._query_rows(problem.X_query, None)
        (term,) = est._terms(est._queries(rows, np.arange(len(exact)), est._measure))
        (blocks,) = _summed(est, [term], np.arange(n))
    queries = []
    for value, basis, gradient in zip(term.values, term.bases or [None] * len(blocks), blocks):
        matrices = value.view(-1, *gradient.shape)
        queries.append(matrices if basis is None else basis.inverse().encode(matrices))
    packed = [pack(gradient, 0.01) for gradient in blocks]
    per_row = sum(t.numel() * t.element_size() for own in packed for t in own.values()) / n
    yield f"\n{problem.name}, influence functions: {per_row:.0f} bytes per row as factors (tol=.01)"
    total = torch.zeros(len(exact), n)
    for own, gradient, v in zip(packed, blocks, queries):
        total = unpack(own, gradient.shape, gradient.tensors()[-1]).inner_(v.flatten(1).contiguous(), total)
    yield _line("factors, the queries exact", total, exact)
    for scheme, k in itertools.product(("eigen-directions", "Kronecker (LoGra)"), DIRECTIONS):
        total = torch.zeros(len(exact), n)
        for number, (gradient, v) in enumerate(zip(blocks, queries)):
            left, right = projected(scheme, gradient, k, number)
            kept = (left.mT @ v @ right).flatten(1).contiguous()
            total = gradient.rotate_factors(left, right).inner_(kept, total)
        size = HALF * sum(_smallest(gradient, k) for gradient in blocks)
        yield _line(f"{scheme}, {k} a side, {size} bytes", total, exact)
    width = int(per_row // HALF)
    generator, sketches = torch.Generator().manual_seed(0), [torch.zeros(len(exact), width), torch.zeros(n, width)]
    for gradient, v in zip(blocks, queries):
        size = v[0].numel()
        buckets = torch.randint(width, (size,), generator=generator)
        signs = torch.randint(2, (size,), generator=generator) * 2.0 - 1.0
        sketches[0].index_add_(1, buckets, v.flatten(1) * signs)
        for some, matrices in gradient.matrix_chunks():
            sketches[1][some] += torch.zeros(len(matrices), width).index_add_(1, buckets, matrices.flatten(1) * signs)
    yield _line(f"SJLT, {width} numbers, {HALF * width} bytes", sketches[0] @ sketches[1].T, exact)


def _smallest(gradient: Any, k: int) -> int:
    """Return the numbers of a row's gradient in ``k`` directions a side: factors, or a matrix."""
    _, out, inp = gradient.shape
    left, right = min(k, out), min(k, inp)
    return min(gradient.n_positions * (left + right), left * right)


def _line(name: str, found: torch.Tensor, exact: np.ndarray) -> str:
    median, largest, rank = errors(found.double().numpy(), exact)
    return f"  {name}: error {median:.3f} (at most {largest:.3f}), rank correlation {rank:.4f}"


def main() -> None:
    """Train one network, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", default="concrete-sgd", choices=sorted(PROBLEMS))
    parser.add_argument("--mnist", type=Path, default=Path(), help="folder with the test set of MNIST, as gz files")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--rows", type=int, help="training rows, those of the problem repeated")
    parser.add_argument("--truth", type=Path, help="folder of retrained networks, as lds.py leaves it")
    parser.add_argument("--tolerances", nargs="*", type=float, default=TOLERANCES)
    parser.add_argument("--queries", type=int, help="the first of the problem's")
    parser.add_argument("--schemes", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    problem = PROBLEMS[arguments.problem](arguments.mnist)
    if arguments.queries is not None:
        some = slice(arguments.queries)
        y_query = None if problem.y_query is None else problem.y_query[some]
        problem = replace(problem, X_query=problem.X_query[some], y_query=y_query)
    if arguments.rows is not None:
        problem = repeated(problem, arguments.rows)
    torch.manual_seed(0)
    np.random.seed(0)
    net = problem.make_net(6).fit(problem.X_train, problem.y_train)
    truth = None if arguments.truth is None else make_truth(problem, arguments.truth)
    if arguments.schemes:
        for line in schemes(problem, net):
            print(line, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        compare(problem, net, arguments.methods, arguments.tolerances, truth, Path(folder))


if __name__ == "__main__":
    main()
