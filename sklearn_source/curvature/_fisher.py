"""The gradients that the curvature is an average of: columns of the Fisher's root, row by row."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch

from ..gradients import loss_cotangent
from ..gradients.algebra import held_bytes
from ..utils._counter_random import row_uniforms
from ..utils._digest import digest


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

    roots: list
    penalty: list

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
    engine : GradientEngine
    rows : Rows
    index : ndarray of int
        The rows averaged over.
    checkpoints : sequence
        Each with ``step``, ``parameters`` and ``buffers``.
    weights : ndarray
        Of the checkpoints, summing to one.
    fisher : {"exact", "sampled", "empirical"}
    n_samples : int
        Draws per row for ``"sampled"``.
    keys : ndarray of uint64
        What a row's random draws depend on.
    seed : int
    batch_size : int
    cache_bytes : int
        Budget for keeping factored gradients between passes: what fits is not computed again.
    progress : callable, optional
        Wraps the iterator over batches.
    metric : Metric, optional
        The coordinates that the columns are given in: see :class:`Metric`.
    identified : bool, default=False
        Whether ``keys`` are fingerprints of the rows' contents. Without them nothing can be kept for another fit.
    """

    def __init__(
        self, network, engine, rows, index, checkpoints, weights, *, fisher, keys, seed, batch_size, cache_bytes,
        n_samples=1, progress=None, metric=None, identified=False,
    ):  # fmt: skip
        self.network, self.engine, self.rows = network, engine, rows
        self.index, self.checkpoints, self.weights = np.asarray(index), list(checkpoints), np.asarray(weights, float)
        self.fisher, self.n_samples, self.keys, self.seed = fisher, n_samples, keys, seed
        self.batch_size, self._budget = batch_size, cache_bytes
        self._progress = progress or (lambda iterable, **_: iterable)
        self.metric, self.identified = metric, identified
        self._kept = {}

    @property
    def blocks(self):
        """The matrices of parameters, each with its ``name``, its ``shape`` (groups, out, in) and ``has_factors``."""
        return self.engine.blocks

    @property
    def n_rows(self):
        """How many rows the curvature is a mean over."""
        return len(self.index)

    @property
    def dtype(self):
        """Of the vectors that the fitted curvature will be applied to."""
        return self.network.dtype

    @property
    def device(self):
        """Where these are."""
        return self.network.device

    @property
    def penalties(self):
        """Per block a diagonal (groups, out, in), float64, that belongs to H beside the mean over rows, or None."""
        if self.metric is None:
            return [None for _ in self.blocks]
        return [None if d is None else d.double() for d in self.metric.penalty]

    @functools.cached_property
    def digest(self):
        """Of all that decides the columns at a given checkpoint: rows, network, blocks, draws and metric."""
        return digest(
            (
                np.asarray(self.keys)[self.index],
                self.network.signature(),
                [(block.name, block.kind, block.parameters, block.shape) for block in self.blocks],
                self.fisher,
                (self.n_samples, self.seed) if self.fisher == "sampled" else None,
                None if self.metric is None else [*self.metric.roots, *self.metric.penalty],
            )
        )

    def columns(self, c):
        """Batches of checkpoint ``c``: each a list over blocks of lists over Fisher columns of gradients.

        Summed over batches and columns and divided by ``n_rows``, the outer products of the columns are H(theta_c).
        The gradients are :class:`~sklearn_source.gradients.algebra.Factored`, ``Indexed`` or ``Dense``; of each
        ``matrix()`` is the tensor (rows, groups, out, in).
        """
        starts = range(0, self.n_rows, self.batch_size)
        missing = [start for start in starts if (c, start) not in self._kept]
        if missing:
            checkpoint = self.checkpoints[c]
            self.network.load(checkpoint.parameters, checkpoint.buffers)
        with self.engine.attached():
            for start in self._progress(starts, desc=f"curvature, step {self.checkpoints[c].step}"):
                kept = self._kept.get((c, start))
                if kept is None:
                    kept = self._compute(c, start)
                    size = held_bytes([column for columns in kept for column in columns])
                    if size <= self._budget:
                        self._budget -= size
                        self._kept[c, start] = kept
                yield kept if self.metric is None else self.metric.scale(kept)

    def _compute(self, c, start):
        index = self.index[start : start + self.batch_size]
        x, y = self.rows.batch(index)
        capture = self.engine.capture(x)
        columns = [capture.pull(cotangent) for cotangent in self._cotangents(c, capture.output, x, y, index)]
        return [list(block) for block in zip(*columns)]

    def _cotangents(self, c, output, x, y, index):
        output = output.detach()
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
    if value is not None and not bool(torch.isfinite(value).all()):
        where = f"at step {checkpoint.step}" if checkpoint.step >= 0 else "at the trained weights"
        raise ValueError(
            f"{what} of layer {block.name!r} {where} is not finite: the gradients there overflow or "
            "the weights are not finite. Look at this checkpoint's loss; attribute a shorter trajectory or leave the "
            "layer out with layers="
        )
