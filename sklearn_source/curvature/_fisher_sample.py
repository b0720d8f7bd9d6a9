"""A sample of a stream's Fisher columns, those that make up most of H first."""

from __future__ import annotations

import numpy as np
import torch

from ..gradients.algebra import chosen, held_bytes
from ..utils._counter_random import row_uniforms
from ._shared_passes import by_blocks

# Which columns are taken does not vary from fit to fit: whatever the random state, a row and a checkpoint decide.
_SEED = 0
# Columns at the most whose Gram matrix is decomposed: the cube of them is the work, the square the memory.
MAX_ROOT_ROWS = 12_000
_ROWS = 1 << 16  # looked at together
# Draws of a row are numbered by checkpoint and sample; these are others.
_DRAW = 2**40


class FisherSample:
    """Columns drawn with probabilities in proportion to their squares in the outputs' space, and weighted by these.

    Most rows of a network that fits have next to no curvature: of the columns of ten classes a few in a hundred hold
    nine tenths of it. Their squares cost a forward pass; a gradient is taken only of those drawn. The expectation of
    the sum of their outer products is H, and its trace in the outputs' space is exact. Where all columns are wanted,
    nothing is left to chance.

    Parameters
    ----------
    stream : FisherStream
    size : int
        About how many columns, over all checkpoints.
    """

    def __init__(self, stream, size):
        self._stream = stream
        squares = []
        for c, weight in enumerate(stream.weights):
            parts = by_blocks(_squares, stream, c)
            squares.append(parts[0] if len(parts) == 1 else np.concatenate(parts))
            squares[-1] *= float(weight) / stream.n_rows
        total, scale = sum(float(s.sum()) for s in squares), _scale([s.ravel() for s in squares], size)
        self._n_columns = squares[0].shape[1]  # of a row
        self._chosen = [self._drawn(c, square, scale) for c, square in enumerate(squares)]
        drawn = sum(float((weight * square).sum()) for _, _, weight, square in self._chosen)
        self._correction = total / drawn if drawn > 0 else 1.0

    def _drawn(self, c, squares, scale):
        """Which columns of a checkpoint are drawn: rows, numbers among those of a row, weights, squares."""
        stream, found = self._stream, []
        draw = _DRAW + stream.checkpoints[c].step + 1
        for start in range(0, len(squares), _ROWS):  # uniform numbers are as large as the squares
            some = squares[start : start + _ROWS]
            probability = np.minimum(1.0, some * scale) if np.isfinite(scale) else (some > 0).astype(float)
            keys = stream.keys[stream.index[start : start + _ROWS]]
            uniforms = row_uniforms(keys, some.shape[1:], seed=_SEED, draw=draw).numpy()
            rows, columns = np.nonzero(uniforms < probability)
            found.append((rows + start, columns, 1.0 / probability[rows, columns], some[rows, columns]))
        return tuple(np.concatenate(each) for each in zip(*found))

    @property
    def by_chance(self):
        """Which of the columns, in the order of :meth:`batches`, stand for others too: ndarray of bool (n_columns,).

        Targets that are drawn stand for those that are not.
        """
        weights = np.concatenate([weights for _, _, weights, _ in self._chosen])
        return np.full(len(weights), True) if self._stream.fisher == "sampled" else weights > 1.0

    def batches(self):
        """Drawn columns, some at a time, whose outer products sum to H.

        Yields
        ------
        gradients : list over blocks of lists of one gradient
        rows : ndarray of int (n_columns,)
            Positions among the stream's rows.
        """
        stream = self._stream
        for c, (rows, columns, weights, _) in enumerate(self._chosen):
            if not len(rows):
                continue
            factors = np.sqrt(weights * (self._correction * float(stream.weights[c]) / stream.n_rows))
            for first, own in self._stretches(c, rows):
                drawn = rows[own], columns[own], factors[own]
                if first is None:
                    yield from self._pulled(c, *drawn)
                else:
                    yield stream._in_metric(self._taken(c, first, *drawn)), rows[own]

    def _stretches(self, c, rows):
        """Where drawn columns, of ``rows`` ascending, come from: (first row of a whole batch or None, slice) in turn.

        Whole batches are those of which most columns were drawn: a pass over the rows may have left them in memory, but
        numbers must not depend on that.
        """
        stream, found = self._stream, []
        for start in range(0, stream.n_rows, stream.batch_size):
            stop = min(start + stream.batch_size, stream.n_rows)
            low, high = np.searchsorted(rows, [start, stop])
            if high - low >= (stop - start) * max(1.0, self._n_columns / 2):
                found.append((start, slice(low, high)))
            elif found and found[-1][0] is None:
                found[-1] = (None, slice(found[-1][1].start, high))
            else:
                found.append((None, slice(low, high)))
        return [stretch for stretch in found if stretch[1].stop > stretch[1].start]

    def _taken(self, c, first, rows, columns, factors):
        """Some columns out of those of a batch of rows."""
        stream = self._stream
        batch = stream._kept.get((c, first))
        if batch is None:
            stream._load(c)
            with stream.engine.attached():
                batch = stream._compute(c, first)
        which = [torch.as_tensor(x).to(stream.device) for x in (rows - first, columns, factors)]
        return [[chosen(own, *which)] for own in batch]

    def _pulled(self, c, rows, columns, factors):
        """Columns by a pass of their own, one for every row of it."""
        stream = self._stream
        stream._load(c)
        with stream.engine.attached():
            for some in stream._batches(range(len(rows))):
                x, y = stream.rows.batch(stream.index[rows[some]])
                capture = stream.engine.capture(x)
                cotangent = torch.zeros_like(capture.output)
                for number, column in enumerate(stream._cotangents(c, capture.output, x, y, rows[some])):
                    own = np.where(columns[some] == number, factors[some], 0.0)
                    cotangent += column * torch.as_tensor(own).to(column).reshape(-1, *[1] * (column.ndim - 1))
                yield stream._in_metric([[gradient] for gradient in capture.pull(cotangent)]), rows[some]


def _squares(stream, c):
    """Squares of all columns at a checkpoint, in the outputs' space: (n_rows, n_columns)."""
    stream._load(c)
    squares: np.ndarray | None = None
    for positions in stream._batches(range(stream.n_rows)):
        x, y = stream.rows.batch(stream.index[positions])
        with torch.no_grad():
            output = stream.network.forward_as_trained(x)
        columns = stream._cotangents(c, output, x, y, positions)
        part = torch.stack([v.double().reshape(len(v), -1).square().sum(1) for v in columns], dim=1).cpu().numpy()
        squares = np.empty((stream.n_rows, part.shape[1])) if squares is None else squares
        squares[positions] = part
    return squares


def draws_that_fill(size, n_rows):
    """How often targets are drawn per row, at least, for so many columns."""
    return -(-min(size, MAX_ROOT_ROWS) // n_rows)


def columns_that_fit(stream, size, n_bytes):
    """``size``, or how many columns' gradients can be held in ``n_bytes``."""
    stream._load(len(stream.checkpoints) - 1)
    with stream.engine.attached():
        x, _ = stream.rows.batch(stream.index[:1])
        capture = stream.engine.capture(x)
        per_column = held_bytes(capture.pull(torch.ones_like(capture.output)))
    return max(1, min(size, n_bytes // max(per_column, 1)))


def _scale(squares, size):
    """``s`` with ``sum min(1, s * squares) = size`` of arrays of squares; infinite where all are wanted."""
    n_positive = sum(int(np.count_nonzero(each)) for each in squares)
    if size >= n_positive:
        return np.inf if n_positive else 0.0
    # With the k largest certain, the others share size - k: of all squares no more than the largest are sorted, and
    # no more are held than these and a part of the others.
    largest, others = np.empty(0), 0.0
    for part in (each[start : start + _ROWS] for each in squares for start in range(0, len(each), _ROWS)):
        largest = np.concatenate([largest, part])
        if len(largest) > size:
            parted = np.partition(largest, len(largest) - size)
            others += parted[: len(parted) - size].sum()
            largest = parted[len(parted) - size :]
    rising = np.sort(largest)
    largest, rest = rising[::-1], (others + np.cumsum(rising))[::-1]
    scales = (size - np.arange(size)) / rest
    return float(scales[np.argmax(scales * largest <= 1.0 + 1e-12)])
