"""Scores of neighbouring training rows, joined until they are worth a write."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


class ScoreSlabs:
    """Writes some queries' scores, which come a few training rows at a time, in as few pieces as memory allows.

    Parameters
    ----------
    write : callable
        Takes a slice of training rows and their scores (n_queries, rows).
    shape : tuple of int
        (n_queries, n_train).
    n_bytes : int
        What may be held; 0: everything is written as it comes.
    """

    def __init__(self, write: Callable[[slice, NDArray], None], shape: tuple[int, int], n_bytes: int):
        self._write, self._n_queries = write, shape[0]
        self._width = min(shape[1], max(1, n_bytes // (4 * shape[0])))
        self._buffer = np.empty((shape[0], self._width), dtype=np.float32) if n_bytes else None
        self._start = self._filled = 0
        self._missing = np.ones(shape[1], dtype=bool)

    def add(self, columns: slice, scores: NDArray) -> None:
        """Take in the scores (n_queries, rows) of the training rows ``columns``."""
        self._missing[columns] = False
        if self._buffer is None:
            self._write(columns, scores)
            return
        if columns.start != self._start + self._filled:
            self._flush()
            self._start = columns.start
        taken = 0
        while taken < scores.shape[1]:
            part = scores[:, taken : taken + self._width - self._filled]
            self._buffer[:, self._filled : self._filled + part.shape[1]] = part
            self._filled, taken = self._filled + part.shape[1], taken + part.shape[1]
            if self._filled == self._width:
                self._flush()

    def finish(self) -> None:
        """Write what is held, and zeros for the training rows that never came."""
        self._flush()
        (edges,) = np.nonzero(np.diff(self._missing, prepend=False, append=False))
        for start, stop in edges.reshape(-1, 2).tolist():
            for begin in range(start, stop, self._width):
                columns = slice(begin, min(begin + self._width, stop))
                self._write(columns, np.zeros((self._n_queries, columns.stop - begin), dtype=np.float32))

    def _flush(self):
        if self._buffer is not None and self._filled:
            self._write(slice(self._start, self._start + self._filled), self._buffer[:, : self._filled])
        self._start, self._filled = self._start + self._filled, 0
