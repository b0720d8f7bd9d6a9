"""Passes over the rows of a stream by several workers: every one takes blocks of rows."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

from ..utils._tree import map_tensors
from ..utils._workers import in_blocks, n_workers, row_blocks
from ._fisher import FisherStream

# Every block sends back its sums, which are as large as the curvature: no more of them than keep workers busy.
_BLOCKS = 4


def by_blocks(function: Callable[..., Any], stream: FisherStream, c: int, *options: Any) -> list[Any]:
    """``function(part, 0, *options)`` of parts of a stream, by as many workers as ``stream.n_jobs`` says.

    Parameters
    ----------
    function : callable
        Of a module of the package: reads the stream it is given at the checkpoint of that number.
    stream : FisherStream
    c : int
        Which of its checkpoints.
    *options : object
        What else the function takes.

    Returns
    -------
    results : list
        In the order of the rows. One, of the stream itself, where there is one worker.
    """
    workers = n_workers(getattr(stream, "n_jobs", 1))
    batches = [] if workers == 1 else row_blocks(stream.n_rows, stream.batch_size, workers, per_worker=_BLOCKS)
    if len(batches) < 2:
        return [function(stream, c, *options)]
    blocks = [(some[0].start, some[-1].stop, some[0].stop - some[0].start) for some in batches]
    results = in_blocks(_of_block, (function, _at(stream, c), options), blocks, n_jobs=stream.n_jobs)
    return [map_tensors(lambda tensor: tensor.to(stream.device), part) for part in stream._watched(results, c)]


def summed_by_blocks(function: Callable[..., Any], stream: FisherStream, c: int, *options: Any) -> Any:
    """The sum of what :func:`by_blocks` gives: lists of lists of tensors, numbers, or None."""
    first, *others = by_blocks(function, stream, c, *options)
    for other in others:
        first = _plus(first, other)
    return first


def _plus(one, other):
    if isinstance(one, (list, tuple)):
        return [_plus(a, b) for a, b in zip(one, other, strict=True)]
    if one is None or other is None:
        return one if other is None else other
    return one.add_(other) if isinstance(one, torch.Tensor) else one + other


def _at(stream, c):
    """The stream at one checkpoint alone, without what was computed of it."""
    part = copy.copy(stream)
    vars(part).pop("identity", None)
    part.checkpoints, part.weights = [stream.checkpoints[c]], stream.weights[c : c + 1]
    part._kept, part._budget, part._first_rows, part.notes_first_rows = {}, 0, {}, False
    return part


def _of_block(content, block):
    """By a worker."""
    function, stream, options = content
    start, stop, stream.batch_size = block
    stream.index = stream.index[start:stop]
    stream.row_weights = None if stream.row_weights is None else stream.row_weights[start:stop]
    return map_tensors(lambda tensor: tensor.cpu(), function(stream, 0, *options))
