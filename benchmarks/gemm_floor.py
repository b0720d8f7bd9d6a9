"""The floor under every score matrix: what a plain GEMM of this machine needs for the same operations.

``python gemm_floor.py`` prints the rate of a square GEMM and, for each task, of the GEMM that the scores would be if
the preconditioned query gradients and the training gradients lay in memory as two matrices,
(n_query, n_params) @ (n_params, n_train).
"""

from __future__ import annotations

import statistics
import time

import torch
from _common import N_THREADS
from _tasks import TASKS, Task, make_task


def score_flops(task: Task) -> float:
    """Return the operations of the dense score GEMM, 2 n_query n_train n_params (forward and backward not counted)."""
    return 2.0 * len(task.X_query) * len(task.X_train) * task.n_params


def gemm_rate(m: int = 2048, n: int = 2048, k: int = 2048, repeats: int = 7) -> float:
    """Return the median rate, in GFLOP/s, of a float32 (m, k) @ (k, n) into a preallocated result."""
    left, right, out = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)
    torch.mm(left, right, out=out)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        torch.mm(left, right, out=out)
        seconds.append(time.perf_counter() - start)
    return 2e-9 * m * n * k / statistics.median(seconds)


def score_gemm_rate(task: Task, repeats: int = 7) -> float:
    """Return the rate of the score GEMM in blocks as large as a program can reasonably hold.

    At most 500 rows by 65536 parameters: the shape is as flat as the scores are (few queries), the inner dimension
    long enough for its rate to have settled.
    """
    return gemm_rate(len(task.X_query), min(500, len(task.X_train)), min(65536, task.n_params), repeats)


if __name__ == "__main__":
    print(f"{N_THREADS} threads, float32, 2048 x 2048 x 2048: {gemm_rate():.0f} GFLOP/s")
    for name in TASKS:
        task = make_task(name)
        rate = score_gemm_rate(task)
        flops = score_flops(task)
        seconds = f"{1e-9 * flops:.0f} GFLOP, {1e-9 * flops / rate:.2f} s"
        print(f"task {name}: {rate:.0f} GFLOP/s in its own shape; scores {seconds}")
