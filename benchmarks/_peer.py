"""The peer: EK-FAC influence functions by kronfluence 1.0.1, set up to be as fast as its API allows.

Correspondence with `InfluenceFunctions(curvature=EKFAC(fisher="empirical", coupling=None), damping="mean_eigenvalue")`:

- The loss handed over is the *sum* over the batch, so its per-row gradients are those of the row losses.
- ``scores[q, m] = <(H + damping)^-1 grad f_q, grad l_m>``, with f_q what `compute_measurement` returns: no sign, no
  1/N. With f_q the margin, ``tau[q, m] = -scores[q, m] / N`` (a row whose loss gradient opposes the gradient of the
  margin raises the margin).
- ``H = mean over rows`` of the squared rotated row gradients; ``damping_factor=None`` means 0.1 x the mean eigenvalue
  of each layer. The default of 1e-8 takes as long but multiplies rounding errors in empty directions by up to 1e8,
  so that no two float32 programs agree; it is not used here.

How it is helped: no disk (a directory in shared memory), one process, batches handed over as slices instead of
stacked row by row, progress bars off, the best batch size of each phase (`BATCHES`, reproduced by
``python _peer.py --sweep a``), all queries in one block where that wins, and for vectors the row-gradient route
(`Batches.rowwise`), which its own contraction planner does not find. Saving and loading factors is part of its API and
stays in the time.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from _common import Clock, exit_on_terminate, timed
from _tasks import TASKS, Task, make_task
from torch import Tensor, nn


@dataclass(frozen=True)
class Batches:
    """Rows per batch in each phase of the peer, and its route through the scores.

    `rowwise`: switch on `enable_post_process_per_sample_gradient` with an identity. The peer then forms the gradient
    matrix of each training row and meets the queries in one GEMM, instead of the contraction that its planner picks by
    counting operations (a batched product over permuted memory: several times slower on 2-D inputs).
    """

    covariance: int
    lambda_: int
    query: int
    train: int
    rowwise: bool = False


BATCHES = {
    "a": Batches(covariance=1000, lambda_=64, query=200, train=1000, rowwise=True),
    "b": Batches(covariance=25, lambda_=8, query=50, train=25),
    "b2": Batches(covariance=25, lambda_=8, query=50, train=25),
    "c": Batches(covariance=50, lambda_=32, query=50, train=125),
}

# Where memory is plenty, all that the peer wants is large batches.
ACCELERATOR_BATCHES = {
    "a": Batches(covariance=6000, lambda_=1000, query=200, train=2000, rowwise=True),
    "b": Batches(covariance=250, lambda_=125, query=50, train=250),
    "b2": Batches(covariance=250, lambda_=125, query=50, train=250),
    "c": Batches(covariance=1000, lambda_=500, query=50, train=500),
}

SWEEP = {
    "a": {"covariance": (250, 1000), "lambda_": (16, 64, 250), "query": (50, 200), "train": (250, 1000)},
    "b": {"covariance": (25, 100), "lambda_": (4, 8, 16, 50), "query": (50,), "train": (25, 100)},
    "b2": {"covariance": (25, 50), "lambda_": (4, 8, 16), "query": (50,), "train": (25, 50)},
    "c": {"covariance": (50, 250), "lambda_": (8, 32, 125), "query": (50,), "train": (32, 125, 250)},
}
SWEEP_ROWS = {"a": 1000, "b": 100, "b2": 50, "c": 250}


def log_odds(logits: Tensor, y: Tensor) -> Tensor:
    """Return ``z_y - logsumexp_{j != y} z_j``, shape (n,)."""
    chosen = F.one_hot(y, logits.shape[1]).bool()
    return logits[chosen] - logits.masked_fill(chosen, -torch.inf).logsumexp(1)


class _Slices(torch.utils.data.Dataset):
    """Rows handed over a batch at a time: stacking 6000 single rows would cost the peer more than its forward pass."""

    def __init__(self, X: Tensor, y: Tensor) -> None:
        self.X, self.y = X, y

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.X[index], self.y[index]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        rows = slice(indices[0], indices[-1] + 1)  # the peer's loaders are sequential: the batch is a view
        return self.X[rows], self.y[rows]


def _as_is(batch: Any) -> Any:
    return batch


def _kronfluence_task(layers: Sequence[str], rowwise: bool) -> Any:
    from kronfluence.task import Task as PeerTask

    class MarginTask(PeerTask):
        enable_post_process_per_sample_gradient = rowwise

        def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Tensor:
            if sample:
                raise ValueError("Expected the empirical Fisher (true labels), got a request to sample labels.")
            return F.cross_entropy(model(batch[0]), batch[1], reduction="sum")

        def compute_measurement(self, batch: Any, model: nn.Module) -> Tensor:
            return log_odds(model(batch[0]), batch[1]).sum()

        def get_influence_tracked_modules(self) -> list[str]:
            return list(layers)

    return MarginTask()


@dataclass
class Peer:
    """A prepared analysis: the wrapped network, its working directory, and the options of both phases.

    Use it as a context manager; leaving it removes the directory.
    """

    task: Task
    batches: Batches | None = None
    damping: float | None = None
    factor_options: dict[str, Any] = field(default_factory=dict)
    score_options: dict[str, Any] = field(default_factory=dict)

    def __enter__(self) -> Peer:
        try:
            from kronfluence.analyzer import Analyzer, prepare_model
            from kronfluence.arguments import FactorArguments, ScoreArguments
            from kronfluence.utils.dataset import DataLoaderKwargs
        except ImportError as error:
            raise ImportError("The peer needs kronfluence: pip install 'kronfluence==1.0.1'.") from error
        if self.batches is None:
            self.batches = (BATCHES if self.task.device == "cpu" else ACCELERATOR_BATCHES)[self.task.name]
        warnings.filterwarnings("ignore", category=FutureWarning)  # torch's, about the peer's GradScaler
        logging.getLogger("kronfluence").setLevel(logging.ERROR)
        shared_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.directory = tempfile.mkdtemp(prefix="peer-", dir=shared_memory)
        peer_task = _kronfluence_task(self.task.layers, self.batches.rowwise)
        self.analyzer = Analyzer(
            analysis_name="benchmark",
            model=prepare_model(self.task.module(), peer_task),
            task=peer_task,
            cpu=self.task.device == "cpu",
            disable_tqdm=True,
            output_dir=self.directory,
        )
        self.analyzer.set_dataloader_kwargs(DataLoaderKwargs(num_workers=0, collate_fn=_as_is))
        self.factor_args = FactorArguments(
            strategy="ekfac",
            use_empirical_fisher=True,
            covariance_max_examples=None,
            lambda_max_examples=None,
            **self.factor_options,
        )
        self.score_args = ScoreArguments(damping_factor=self.damping, **self.score_options)
        self.train = _Slices(self.task.X_train, self.task.y_train)
        self.query = _Slices(self.task.X_query, self.task.y_query)
        return self

    def __exit__(self, *exception: object) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def covariance(self, batch_size: int) -> Clock:
        """Time `fit_covariance_matrices`, the first third of `fit_all_factors`."""
        return timed(
            self.analyzer.fit_covariance_matrices,
            factors_name="f",
            dataset=self.train,
            per_device_batch_size=batch_size,
            factor_args=self.factor_args,
            overwrite_output_dir=True,
        )[1]

    def eigendecomposition(self) -> Clock:
        """Time `perform_eigendecomposition` (float64), the second third."""
        return timed(
            self.analyzer.perform_eigendecomposition,
            factors_name="f",
            factor_args=self.factor_args,
            overwrite_output_dir=True,
        )[1]

    def lambda_(self, batch_size: int) -> Clock:
        """Time `fit_lambda_matrices`, the last third."""
        return timed(
            self.analyzer.fit_lambda_matrices,
            factors_name="f",
            dataset=self.train,
            per_device_batch_size=batch_size,
            factor_args=self.factor_args,
            overwrite_output_dir=True,
        )[1]

    def scores(self, query_batch: int, train_batch: int) -> tuple[Tensor, Clock]:
        """Time `compute_pairwise_scores`; reading the result back is not timed."""
        clock = timed(
            self.analyzer.compute_pairwise_scores,
            scores_name="s",
            factors_name="f",
            query_dataset=self.query,
            train_dataset=self.train,
            per_device_query_batch_size=min(query_batch, len(self.query)),
            per_device_train_batch_size=train_batch,
            score_args=self.score_args,
            overwrite_output_dir=True,
        )[1]
        return self.analyzer.load_pairwise_scores("s")["all_modules"], clock


def peer_factors(peer: Peer) -> dict[str, Clock]:
    """Fit every factor; return the clocks of ``covariance``, ``eigendecomposition``, ``lambda`` and their ``total``.

    The three calls are what `Analyzer.fit_all_factors` does; made one by one, each has its own best batch size.
    """
    clocks = {
        "covariance": peer.covariance(peer.batches.covariance),
        "eigendecomposition": peer.eigendecomposition(),
        "lambda": peer.lambda_(peer.batches.lambda_),
    }
    return clocks | {"total": clocks["covariance"] + clocks["eigendecomposition"] + clocks["lambda"]}


def peer_scores(peer: Peer) -> tuple[Tensor, Clock]:
    """Score every query against every training row with the factors fitted last.

    Returns
    -------
    tau : Tensor of shape (n_query, n_train), float32
        In the unit and with the sign of this package: the peer's scores times -1/N (not timed).
    clock : Clock
    """
    scores, clock = peer.scores(peer.batches.query, peer.batches.train)
    return -scores / len(peer.task.X_train), clock


def warm_up(task: Task) -> None:
    """Run every phase once on a few rows: the first call of a process imports, allocates and plans.

    What is alive afterwards is frozen, because the peer collects garbage several times per call and would pay for every
    object that the other programs of this process keep.
    """
    with Peer(task.head(16, 4), Batches(covariance=16, lambda_=16, query=4, train=16)) as peer:
        peer_factors(peer)
        peer_scores(peer)
    gc.collect()
    gc.freeze()


def sweep(name: str, phases: str) -> None:
    """Print the seconds of every phase at the batch sizes of `SWEEP`, on the first `SWEEP_ROWS` training rows."""
    full, sizes = make_task(name), SWEEP[name]
    n_rows = SWEEP_ROWS[name]
    task = full.head(n_rows, len(full.X_query))

    def show(label: str, clock: Clock) -> None:
        per_row = 1e3 * clock.wall / n_rows
        print(f"  {label:<52} {clock.wall:7.2f} s wall {clock.cpu:7.2f} s cpu {per_row:8.3f} ms/row", flush=True)

    warm_up(full)
    print(f"task {name}, {n_rows} training rows, {len(task.X_query)} queries")
    if "factors" in phases:
        with Peer(task) as peer:
            for size in sizes["covariance"]:
                show(f"covariance, batch {size}", peer.covariance(size))
            show("eigendecomposition", peer.eigendecomposition())
            for size in sizes["lambda_"]:
                show(f"lambda, batch {size}", peer.lambda_(size))
            peer.factor_args.use_iterative_lambda_aggregation = True
            show(f"lambda row by row, batch {size}", peer.lambda_(size))
    if "scores" in phases:
        for rowwise in (True, False):
            with Peer(task, replace(BATCHES[name], rowwise=rowwise)) as peer:
                # The values of the factors do not change the time: those of a few rows do.
                peer.train = _Slices(task.X_train[:32], task.y_train[:32])
                peer_factors(peer)
                peer.train = _Slices(task.X_train, task.y_train)
                for query in sizes["query"]:
                    for train in sizes["train"]:
                        show(f"scores, rowwise {rowwise}, queries {query}, train {train}", peer.scores(query, train)[1])
                peer.score_args.query_gradient_accumulation_steps = 2
                label = f"scores, rowwise {rowwise}, queries {query // 2} twice, train {train}"
                show(label, peer.scores(query // 2, train)[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Find the best batch sizes of the peer.")
    parser.add_argument("--sweep", choices=sorted(TASKS), required=True)
    parser.add_argument("--phases", default="factors,scores", help="factors, scores or both")
    arguments = parser.parse_args()
    exit_on_terminate()
    sweep(arguments.sweep, arguments.phases)
