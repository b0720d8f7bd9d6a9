"""The gradients that the curvature is an average of: columns of the Fisher's root, row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ..gradients import Block, GradientEngine, loss_cotangent
from ..gradients.algebra import condensed, held_bytes
from ..network import Network
from ..rows import Rows
from ..utils._counter_random import row_uniforms
from ..utils._digest import Identity, digest
from ..utils._first_rows import N_ROWS, projected
from ..utils._locks import cached_property


def choose_fisher(fisher, network, n_roots, limit=16):
    """Resolve ``"auto"``: exact for up to ``limit`` outputs per row, else sampled where there is a distribution."""
    if fisher != "auto":
        return fisher
    if n_roots <= limit:
        return "exact"
    return "sampled" if network.row_loss.can_draw(n_roots) else "empirical"


@dataclass(frozen=True)
class Metric:
    """Coordinates in which a preconditioned descent is a plain one: H becomes ``P^(1/2) H P^(1/2) + penalty``.

    Attributes
    ----------
    roots : list of tensor (groups, out, in), one per block
        ``P^(1/2)``, elementwise.
    penalty : list of tensor (groups, out, in) or None, one per block
        A diagonal that belongs to the curvature beside that of the rows: a weight decay that was preconditioned too.
    """

    roots: list[torch.Tensor]
    penalty: list[torch.Tensor | None]

    def scale(self, batch):
        """Every column in these coordinates."""
        return [[column.scaled(root) for column in columns] for columns, root in zip(batch, self.roots)]


class FisherStream:
    """Fisher columns of some training rows at some checkpoints, in as many passes as a curvature needs.

    What :meth:`Curvature.fit <sklearn_source.curvature.Curvature.fit>` is given: :attr:`blocks`, :attr:`n_rows`,
    :attr:`weights`, :attr:`checkpoints`, :attr:`penalties` and :meth:`columns` say all that a curvature needs.

    Read more in the :ref:`User Guide <add_curvature>`.

    Parameters
    ----------
    network : Network
        The private copy of the net, whose weights are switched.
    engine : GradientEngine
        What pulls gradients back through it.
    rows : Rows
        The training rows.
    index : array-like of int of shape (n_rows,)
        Those averaged over.
    checkpoints : sequence
        Each with ``step``, ``parameters`` and ``buffers``.
    weights : array-like of shape (n_checkpoints,)
        Of the checkpoints, summing to one.
    fisher : {"exact", "sampled", "empirical"}
        Which gradients: columns of the Gauss-Newton root, with targets drawn from the model, or with the true targets.
    keys : ndarray of uint64, shape (n_train,)
        What a row's random draws depend on.
    seed : int
        Of the random draws.
    batch_size : int
        Rows taken at once.
    cache_bytes : int
        Budget for keeping factored gradients between passes: what fits is not computed again.
    n_samples : int, default=1
        Draws per row for ``"sampled"``.
    progress : callable, optional
        Wraps the iterator over batches: ``progress(iterable, desc=...)``.
    metric : Metric, optional
        The coordinates that the columns are given in, of an adaptive optimizer.
    identified : bool, default=False
        Whether ``keys`` are fingerprints of the rows' contents. Without them nothing can be kept for another fit.
    row_weights : ndarray of shape (n_rows,), optional
        How much each row counts in the mean; their own mean is one.
    """

    def __init__(
        self,
        network: Network,
        engine: GradientEngine,
        rows: Rows,
        index: ArrayLike,
        checkpoints: Sequence[Any],
        weights: ArrayLike,
        *,
        fisher: str,
        keys: NDArray[np.uint64],
        seed: int,
        batch_size: int,
        cache_bytes: int,
        n_samples: int = 1,
        progress: Callable[..., Iterable[int]] | None = None,
        metric: Metric | None = None,
        identified: bool = False,
        row_weights: NDArray[np.float64] | None = None,
    ):
        self.network, self.engine, self.rows = network, engine, rows
        self.index, self.checkpoints, self.weights = np.asarray(index), list(checkpoints), np.asarray(weights, float)
        self.fisher, self.n_samples, self.keys, self.seed = fisher, n_samples, keys, seed
        self.batch_size, self._budget = batch_size, cache_bytes
        self._progress, self.n_jobs = progress, 1  # workers that may share the rows, as joblib counts them
        self.metric, self.identified, self.row_weights = metric, identified, row_weights
        self._kept: dict[tuple[int, int], list[list[Any]]] = {}
        self.keeps_matrices = False  # of what a curvature needs the factors of in its first pass alone
        self.notes_first_rows = False
        self._first_rows: dict[int, list[list[float]]] = {}

    def __getstate__(self):
        """Without what can be computed again, and the caller's progress bar."""
        return {**self.__dict__, "_kept": {}, "_progress": None}

    @property
    def blocks(self) -> list[Block]:
        """The matrices of parameters, each with its ``name``, its ``shape`` (groups, out, in) and ``has_factors``."""
        return self.engine.blocks

    @property
    def n_rows(self) -> int:
        """How many rows the curvature is a mean over."""
        return len(self.index)

    @property
    def dtype(self) -> torch.dtype:
        """Of the vectors that the fitted curvature will be applied to."""
        return self.network.dtype

    @property
    def device(self) -> torch.device:
        """Where these are."""
        return self.network.device

    @property
    def penalties(self) -> list[torch.Tensor | None]:
        """Per block a diagonal (groups, out, in), float64, that belongs to H beside the mean over rows, or None."""
        if self.metric is None:
            return [None for _ in self.blocks]
        return [None if d is None else d.double() for d in self.metric.penalty]

    @cached_property
    def identity(self) -> Identity:
        """Of all that decides the columns at a given checkpoint: rows, network, blocks, draws and metric."""
        network = self.network.signature()
        key = digest(
            (
                self.rows.given.contents(self.index),
                network.key,
                [(block.name, block.kind, block.parameters, block.shape) for block in self.blocks],
                self.fisher,
                (self.n_samples, self.seed, np.asarray(self.keys)[self.index]) if self.fisher == "sampled" else None,
                None if self.metric is None else [*self.metric.roots, *self.metric.penalty],
                self.row_weights,
                self.rows.draws,
            )
        )
        return Identity(key, network.unknown)

    def first_rows(self, c: int) -> list[list[float]]:
        """What decides the columns of the first rows at a checkpoint, in numbers: outputs, and gradients in these.

        Parameters
        ----------
        c : int
            Which of the checkpoints.

        Returns
        -------
        numbers : list of list of float
            For :func:`.alike`. Costs nothing where :meth:`columns` gave that checkpoint since :attr:`notes_first_rows`
            was set, else a forward pass of eight rows.
        """
        if c not in self._first_rows:
            self._load(c)
            positions = np.arange(min(N_ROWS, self.n_rows))
            x, y = self.rows.batch(self.index[positions])
            with torch.no_grad():
                output = self.network.forward_as_trained(x)
            for _ in self._noted(c, output, self._cotangents(c, output, x, y, positions)):
                pass
        return self._first_rows[c]

    def _noted(self, c, output, cotangents):
        """The cotangents, which come one by one; of the first rows it is noted down what they are."""
        output, diagonal = output.detach()[:N_ROWS], 0.0  # of the Hessian: the sign of a root's column means nothing
        for cotangent in cotangents:
            diagonal = diagonal + cotangent[:N_ROWS].double().square().reshape(len(output), -1)
            yield cotangent
        self._first_rows[c] = torch.stack([projected(output), diagonal.sum(1), projected(diagonal)]).tolist()

    def columns(self, c: int) -> Iterator[list[list[Any]]]:
        """The gradients at a checkpoint, some rows at a time.

        Summed over batches and columns and divided by ``n_rows``, the outer products of the columns are H(theta_c).

        Parameters
        ----------
        c : int
            Which of the checkpoints.

        Yields
        ------
        batch : list over blocks of lists over Fisher columns
            Of gradients, objects of the algebra of gradients; of each ``matrix()`` is the tensor (rows, groups, out,
            in).
        """
        starts: Iterable[int] = range(0, self.n_rows, self.batch_size)
        if any((c, start) not in self._kept for start in starts):
            self._load(c)
        with self.engine.attached():
            for start in self._watched(starts, c):
                kept = self._kept.get((c, start))
                if kept is None:
                    kept = self._compute(c, start)
                    if not self.keeps_matrices:
                        self._keep(c, start, kept)
                    yield self._in_metric(kept)
                    if self.keeps_matrices and self._budget:
                        self._keep(c, start, [condensed(columns) for columns in kept])
                else:
                    yield self._in_metric(kept)

    def _keep(self, c, start, batch):
        """Between passes, where it fits."""
        size = held_bytes([column for columns in batch for column in columns])
        if size <= self._budget:
            self._budget -= size
            self._kept[c, start] = batch
        elif self.keeps_matrices:  # what does not fit is not formed again
            self._budget = 0

    def _watched(self, steps, c):
        """Steps of a pass over the rows at a checkpoint, with a bar where the caller wants one."""
        if self._progress is None:
            return steps
        return self._progress(steps, desc=f"curvature, step {self.checkpoints[c].step}")

    def _load(self, c):
        """Point the network at a checkpoint."""
        checkpoint = self.checkpoints[c]
        self.network.load(checkpoint.parameters, checkpoint.buffers, getattr(checkpoint, "outside", None))

    def _batches(self, positions):
        """Positions among the rows, as many at a time as are taken at once: ndarrays of int."""
        positions = np.asarray(positions)
        return [positions[start : start + self.batch_size] for start in range(0, len(positions), self.batch_size)]

    def _in_metric(self, batch):
        """Gradients of some rows, blocks of columns, in the coordinates of :attr:`metric`."""
        return batch if self.metric is None else self.metric.scale(batch)

    def _compute(self, c, start):
        positions = np.arange(start, min(start + self.batch_size, self.n_rows))
        x, y = self.rows.batch(self.index[positions])
        capture = self.engine.capture(x)
        cotangents = self._cotangents(c, capture.output, x, y, positions)
        if self.notes_first_rows and start == 0 and c not in self._first_rows:
            cotangents = self._noted(c, capture.output, cotangents)
        columns = [capture.pull(cotangent) for cotangent in cotangents]
        return [list(block) for block in zip(*columns)]

    def _cotangents(self, c, output, x, y, positions):
        """What is pulled back of some rows at the loaded checkpoint ``c``, column by column, shaped like ``output``."""
        roots = None
        if self.row_weights is not None:
            roots = torch.as_tensor(self.row_weights[positions] ** 0.5).to(output)
        for cotangent in self._unweighted(c, output.detach(), x, y, self.index[positions]):
            yield cotangent if roots is None else cotangent * roots.reshape(-1, *[1] * (cotangent.ndim - 1))

    def _unweighted(self, c, output, x, y, index):
        if self.fisher == "exact":
            yield from self.network.row_loss.output_hessian(output, y, x).columns()
        elif self.fisher == "empirical":
            yield loss_cotangent(self.network, output, y, x)
        else:
            hessian = self.network.row_loss.output_hessian(output, y, x)
            for draw in range(self.n_samples):
                number = (self.checkpoints[c].step + 1) * self.n_samples + draw  # step -1: the trained weights
                uniforms = row_uniforms(self.keys[index], hessian.uniforms_shape, seed=self.seed, draw=number)
                yield hessian.draw(uniforms.to(output.device)) / self.n_samples**0.5


def require_finite(value, what, block, checkpoint):
    """Raise ValueError naming the layer and the step unless a statistic of a block is finite; None passes."""
    # The sum is read once; it is no number where an entry is none, and then entries are looked at.
    if value is not None and not bool(value.sum().isfinite()) and not bool(torch.isfinite(value).all()):
        where = f"at step {checkpoint.step}" if checkpoint.step >= 0 else "at the trained weights"
        raise ValueError(
            f"{what} of layer {block.name!r} {where} is not finite: the gradients there overflow or "
            "the weights are not finite. Look at this checkpoint's loss; attribute a shorter trajectory or leave the "
            "layer out with layers="
        )
