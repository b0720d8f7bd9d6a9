"""Speed against kronfluence 1.0.1, both in one process, alternating: EK-FAC influence functions at equal exactness.

    python benchmarks/bench_vs_kronfluence.py --task a --repeats 5

prints medians of wall and process CPU seconds, their ratios, how far the two score matrices differ, and the share of
the machine's GEMM rate that the scores reach. Task ``a`` also times a whole SOURCE with 6 checkpoints (fit and
transform) against the peer's one influence function (factors and scores). Run it on an otherwise idle machine: the load
before and after is printed. ``--device cuda`` times both on an accelerator (the peer with `ACCELERATOR_BATCHES`).

``--tol 0.01`` gives our side that tolerance: its queries become few outer products where that is less work, and finding
them counts. ``--peer-rank 8`` gives the peer's queries so many. Each side is then compared with our exact scores too.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import _common
import torch
from _common import Clock, exit_on_terminate, timed
from _peer import ACCELERATOR_BATCHES, BATCHES, Peer, peer_factors, peer_scores, warm_up
from _tasks import TASKS, Task, make_task
from gemm_floor import gemm_rate, score_flops, score_gemm_rate

Times = dict[str, list[Clock]]


def run_peer(task: Task, times: Times, planner: bool = False, rank: int | None = None) -> torch.Tensor:
    """Fit and score once with the peer; append its clocks, return its scores in our unit and sign.

    ``planner``: leave the route through the scores to the peer's own planner, as its users do; so does ``rank``, the
    rank of the queries' gradients, which the other route has none of.
    """
    batches = (BATCHES if task.device == "cpu" else ACCELERATOR_BATCHES)[task.name]
    batches = replace(batches, rowwise=False) if planner or rank is not None else batches
    with Peer(task, batches, score_options={} if rank is None else {"query_gradient_low_rank": rank}) as peer:
        for phase, clock in peer_factors(peer).items():
            times.setdefault("factors" if phase == "total" else phase, []).append(clock)
        tau, clock = peer_scores(peer)
    times.setdefault("scores", []).append(clock)
    times.setdefault("factors + scores", []).append(times["factors"][-1] + clock)
    return tau


def run_ours(side: Any, task: Task, prepared: Any, times: Times, tol: float | None = None) -> torch.Tensor:
    """Fit and score once with this package (and run SOURCE where the task has its checkpoints); return the scores."""
    state, factors = timed(side.our_factors, task, prepared, tol)
    tau, scores = timed(side.our_scores, task, state)
    del state
    times.setdefault("factors", []).append(factors)
    times.setdefault("scores", []).append(scores)
    times.setdefault("factors + scores", []).append(factors + scores)
    if len(task.checkpoints) > 2:
        times.setdefault("source", []).append(timed(side.our_source, task, prepared, tol)[1])
    return torch.as_tensor(tau)


def median(clocks: Sequence[Clock]) -> Clock:
    """Return the median wall and the median CPU seconds (each on its own)."""
    return Clock(statistics.median(c.wall for c in clocks), statistics.median(c.cpu for c in clocks))


def spread(clocks: Sequence[Clock]) -> str:
    """Return the range of the wall seconds."""
    return f"{min(c.wall for c in clocks):.2f}-{max(c.wall for c in clocks):.2f}"


def table(peer: Times, ours: Times) -> str:
    """Return the markdown table of medians; a side that did not run is left blank."""
    lines = [
        "| phase | peer wall (range) | ours wall (range) | wall ratio | peer CPU | ours CPU | CPU ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    phases = [(name, name, name) for name in ("covariance", "eigendecomposition", "lambda")]
    phases += [(name, name, name) for name in ("factors", "scores", "factors + scores")]
    phases += [("whole SOURCE vs factors + scores", "factors + scores", "source")]
    for label, peer_phase, our_phase in phases:
        theirs, mine = peer.get(peer_phase), ours.get(our_phase)
        if our_phase == "source" and mine is None:
            continue
        if theirs is None and mine is None:
            continue
        p, o = (median(clocks) if clocks else None for clocks in (theirs, mine))
        cells = [
            f"{p.wall:.2f} s ({spread(theirs)})" if p else "",
            f"{o.wall:.2f} s ({spread(mine)})" if o else "",
            f"{p.wall / o.wall:.1f}x" if p and o else "",
            f"{p.cpu:.2f} s" if p else "",
            f"{o.cpu:.2f} s" if o else "",
            f"{p.cpu / o.cpu:.1f}x" if p and o else "",
        ]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def difference(ours: torch.Tensor, peer: torch.Tensor) -> str:
    """Return how far two score matrices are apart: relative Frobenius norm, largest entry, rank correlations."""
    gap = (ours.double() - peer.double()).abs()
    largest = gap.max() / peer.abs().max()
    ranks = torch.stack([scores.argsort(1).argsort(1).double() for scores in (ours, peer)])
    ranks = ranks - ranks.mean(2, keepdim=True)
    agreement = (ranks[0] * ranks[1]).sum(1) / (ranks[0].norm(dim=1) * ranks[1].norm(dim=1))
    return (
        f"relative Frobenius {gap.norm() / peer.double().norm():.1e}, largest {largest:.1e} of the largest score, rank "
        f"correlation {agreement.mean():.4f} (least {agreement.min():.4f})"
    )


def floor_report(task: Task, sides: dict[str, Times]) -> str:
    """Return the GEMM rates and the share of them that each side's scores reach."""
    square, own = gemm_rate(), score_gemm_rate(task)
    flops = score_flops(task) * 1e-9
    lines = [
        f"Plain GEMM: {square:.0f} GFLOP/s square, {own:.0f} GFLOP/s in the shape of the scores; "
        f"scores of {flops:.0f} GFLOP have a floor of {flops / own:.2f} s."
    ]
    for side, times in sides.items():
        if "scores" in times:
            lines.append(f"Share of that floor reached, {side}: {flops / own / median(times['scores']).wall:.0%}.")
    return "\n".join(lines)


def bench(
    task: Task, repeats: int, only: str | None, planner: bool, tol: float | None = None, rank: int | None = None
) -> None:
    """Alternate the two sides `repeats` times, each going first every other time, and print the report."""
    peer_times: Times = {}
    our_times: Times = {}
    latest: dict[str, torch.Tensor] = {}
    runs: list[tuple[str, Callable[[], torch.Tensor]]] = []
    if only != "ours":
        warm_up(task)
        runs.append(("peer", lambda: run_peer(task, peer_times, planner, rank)))
    exact = None
    if only != "peer":
        import _ours  # only here: the peer can be timed where this package is not installed

        small = task.head(64, 8)
        run_ours(_ours, small, _ours.prepare(small), {})
        prepared = _ours.prepare(task)
        runs.append(("ours", lambda: run_ours(_ours, task, prepared, our_times, tol)))
        if tol is not None or rank is not None:
            exact = torch.as_tensor(_ours.our_scores(task, _ours.our_factors(task, prepared)))
            if tol is not None and len(task.checkpoints) > 2:
                sources = (torch.as_tensor(_ours.our_source(task, prepared, t)) for t in (tol, None))
                print(f"SOURCE within {tol:g} against exact: {difference(*sources)}.")

    print(f"## Task {task.name}: {len(task.X_train)} x {len(task.X_query)} rows, {task.n_params} parameters")
    if planner:
        print("The peer's route through the scores is its own planner's.")
    if tol is not None or rank is not None:
        print(f"Ours with tol={tol}, the peer with queries of rank {rank}.")
    print(f"torch {torch.__version__}, {_common.N_THREADS} threads, denormals flushed, {repeats} repeats.")
    print(f"Load average before: {os.getloadavg()[0]:.1f}.", flush=True)
    for repeat in range(repeats):
        for side, run in runs if repeat % 2 == 0 else reversed(runs):
            latest[side] = run()
    print(f"Load average after: {os.getloadavg()[0]:.1f} (two busy threads alone make 2).\n")
    print(table(peer_times, our_times) + "\n")
    if len(latest) == 2:
        print(f"Scores, ours against peer: {difference(latest['ours'], latest['peer'])}.")
    if exact is not None:
        for side, scores in latest.items():
            print(f"Scores, {side} against exact: {difference(scores, exact)}.")
    if task.device == "cpu":
        print(floor_report(task, {"peer": peer_times, "ours": our_times}))
    else:
        print(f"{torch.cuda.get_device_name()}: {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB at the most.")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=sorted(TASKS), default="a")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=("peer", "ours"), help="run one side alone")
    parser.add_argument(
        "--peer-planner", action="store_true", help="let the peer choose its route, at its best batches"
    )
    parser.add_argument("--device", default="cpu", help="where both sides compute: cpu or cuda")
    parser.add_argument("--rows", type=int, help="use the first so many training rows (a quick look, not a result)")
    parser.add_argument("--tol", type=float, help="our side within this tolerance, the decompositions counted")
    parser.add_argument("--peer-rank", type=int, help="the peer's queries as so many outer products")
    arguments = parser.parse_args()
    exit_on_terminate()
    if arguments.repeats < 1:
        parser.error(f"expected --repeats of at least 1, got {arguments.repeats}")
    task = replace(make_task(arguments.task), device=arguments.device)
    if arguments.rows is not None:
        task = task.head(arguments.rows, len(task.X_query))
    bench(task, arguments.repeats, arguments.only, arguments.peer_planner, arguments.tol, arguments.peer_rank)


if __name__ == "__main__":
    main()
