"""Scores of training rows by several workers: what is sent to them, and what they do with a block of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ..rows import Rows
from ..utils._config import bytes_for
from ..utils._progress import counter
from ..utils._tree import map_tensors
from ..utils._workers import in_blocks, n_workers, row_blocks

# What a fitted method is without, on its way to a worker: nets, files and rows that it was made of.
_LEFT_BEHIND = {"net", "net_", "trajectory", "_given", "_stored"}


def spread_scores(method: Any, terms: list[Any], rows: Rows, n_queries: int) -> Iterator[tuple[slice, Any]] | None:
    """Scores of all training rows, a block of rows per call of a worker.

    Parameters
    ----------
    method : GradientAttribution
        Fitted, with ``n_jobs``.
    terms : list of Term
        The queries.
    rows : Rows
        The training rows.
    n_queries : int

    Returns
    -------
    parts : iterator of (slice of training rows, ndarray (n_queries, rows)), or None
        In order. None where there is one worker, or one block, or gradients in a store are read in place of the rows.
    """
    if getattr(method, "_stored", None) is not None and rows is method._rows:
        return None
    size = method._gradients.batch_size
    blocks = _blocks(method, size, 4 * n_queries)
    if blocks is None:
        return None
    walker = _part_of(method, {"_network", "_gradients"})
    return _parts(method, _block_scores, (walker, terms, rows, n_queries), blocks, "training rows")


def spread_self_influence(method: Any, size: int) -> Iterator[tuple[slice, Any]] | None:
    """The same for every row's influence on itself, ``size`` rows at a time: ndarrays (rows,)."""
    blocks = _blocks(method, size, 4)
    if blocks is None:
        return None
    return _parts(method, _block_self_influence, _part_of(method, set(vars(method)) - _LEFT_BEHIND), blocks, "self")


def spread_features(method: Any, size: int) -> Iterator[tuple[slice, Any]] | None:
    """The same for the features of all training rows, ``size`` rows at a time: tensors (rows, width)."""
    blocks = _blocks(method, size)
    if blocks is None:
        return None
    return _parts(method, _block_features, _part_of(method, set(vars(method)) - _LEFT_BEHIND), blocks, "features")


def spread_gradients(method: Any, function: Any, slices: list[slice], *options: Any) -> Iterator[Any]:
    """``function(method, rows, *options)`` of some slices of the training rows, in order, by however many workers.

    Parameters
    ----------
    method : GradientAttribution
        A worker has its network, gradients and training rows.
    function : callable
        Of a module of the package.
    slices : list of slice
    *options : object
        What else the function takes.

    Returns
    -------
    results : iterator
    """
    n_jobs = getattr(method, "n_jobs", None)
    if n_workers(n_jobs) == 1 or len(slices) < 2:
        return (function(method, rows, *options) for rows in slices)
    walker = _part_of(method, {"_network", "_gradients", "_rows"})
    return in_blocks(_block_gradients, (walker, function, options), slices, n_jobs=n_jobs)


def _blocks(method, size, bytes_per_row=None):
    workers = n_workers(getattr(method, "n_jobs", None))
    if workers == 1:
        return None
    max_rows = None if bytes_per_row is None else bytes_for("scores") // bytes_per_row
    blocks = row_blocks(method.n_train_, size, workers, max_rows=max_rows)
    return blocks if len(blocks) > 1 else None


def _parts(method, function, content, blocks, desc):
    results = in_blocks(function, content, blocks, n_jobs=getattr(method, "n_jobs", None))
    with counter(len(blocks), verbose=method.verbose > 0, desc=desc, unit="block") as bar:
        for batches, part in zip(blocks, results):
            bar.update(1)
            yield slice(batches[0].start, batches[-1].stop), part


def _part_of(method, names):
    """The method with some of its attributes alone."""
    part = object.__new__(type(method))
    vars(part).update({name: value for name, value in vars(method).items() if name in names})
    return part


def _block_scores(content, batches):
    """By a worker: scores (n_queries, rows) of some batches of rows."""
    method, terms, rows, n_queries = content
    with method._gradients.engine.attached():
        return _joined([method._batch_scores(terms, rows, columns, n_queries) for columns in batches])


def _block_self_influence(method, batches):
    """By a worker: (rows,)."""
    return _joined([method._self_scores(columns) for columns in batches])


def _block_features(method, batches):
    """By a worker: (rows, width)."""
    parts = [method._training_row_features(method._rows, np.arange(b.start, b.stop)) for b in batches]
    return torch.cat(parts).cpu()


def _block_gradients(content, rows):
    """By a worker: what a function gives of some training rows."""
    method, function, options = content
    return map_tensors(lambda tensor: tensor.cpu(), function(method, rows, *options))


def _joined(parts):
    whole = torch.cat(parts, dim=-1).cpu()
    return np.ascontiguousarray((whole.float() if whole.dtype == torch.bfloat16 else whole).numpy())
