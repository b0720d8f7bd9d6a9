"""Where scores go: an array of their own, or one that the caller gave."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..utils._config import bytes_for
from ._query_batches import QueryBatches
from ._score_file import ScoreFile
from ._score_slabs import ScoreSlabs


@contextlib.contextmanager
def score_output(out: Any, shape: tuple[int, int], identity: Callable[[], dict[str, str]]) -> Iterator[Any]:
    """Where the scores of a call go, for as long as they are written.

    Parameters
    ----------
    out : path-like, array or None
        As ``transform`` takes it.
    shape : tuple of int
        (n_query, n_train).
    identity : callable
        Without arguments: what scores in a file are known by, see :class:`ScoreFile`.

    Yields
    ------
    output : ScoreArray or ScoreFile
        With ``left(batches)``, what is to be computed, ``block(rows)``, a context that gives a function to write some
        queries' scores with, and ``result()``.

    Raises
    ------
    TypeError, ValueError
        If it cannot hold the scores.
    FileExistsError
        If there is a file of other scores.
    BlockingIOError
        If another process is writing the file.
    """
    if out is None:
        yield ScoreArray(np.zeros(shape, dtype=np.float32), shape)
    elif isinstance(out, (str, os.PathLike)):
        with contextlib.closing(ScoreFile(out, shape, identity)) as file:
            yield file
    else:
        yield ScoreArray(_checked(out, shape), shape)


class ScoreArray:
    """Scores in an array, a memmap, or whatever is assigned to by slices.

    Parameters
    ----------
    array : ndarray, or object with ``__setitem__``
    shape : tuple of int
        (n_query, n_train).
    """

    def __init__(self, array: Any, shape: tuple[int, int]):
        self._array, self._shape = array, shape
        # Chunks of a store are read, changed and written again where they are not assigned to as a whole.
        self._n_bytes = 0 if isinstance(array, np.ndarray) else bytes_for("scores")

    def left(self, batches: QueryBatches) -> QueryBatches:
        """What is to be computed: all."""
        return batches

    @contextlib.contextmanager
    def block(self, rows: slice) -> Iterator[Callable]:
        """A function that writes (slice of training rows, scores) of the queries ``rows``."""

        def write(columns, scores):
            self._array[rows, columns] = scores

        slabs = ScoreSlabs(write, (rows.stop - rows.start, self._shape[1]), self._n_bytes)
        yield slabs.add
        slabs.finish()

    def result(self) -> Any:
        """The array itself."""
        if isinstance(self._array, np.memmap):
            self._array.flush()
        return self._array


def _checked(out, shape):
    """The array that was given, if it can take scores of this shape."""
    what = (
        f"expected out as a path that ends in .npy, or an array of shape (n_query, n_train) = {shape} that is assigned "
        "to by slices"
    )
    if not hasattr(out, "shape") or not hasattr(out, "__setitem__") or hasattr(out, "iloc"):
        raise TypeError(f"{what}, got a {type(out).__name__}")
    if tuple(out.shape) != shape:
        raise ValueError(f"{what}, got one of shape {tuple(out.shape)}")
    try:
        dtype = np.dtype(getattr(out, "dtype", np.float32))
    except TypeError:
        raise TypeError(f"{what}, got a {type(out).__name__}: of a tensor pass tensor.numpy()") from None
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"{what} and of dtype float32 (or float64), got one of {dtype}, which would round the scores")
    if isinstance(out, np.ndarray) and not out.flags.writeable:
        raise ValueError(f"{what}, got one that is read-only: open a memmap with mode 'r+'")
    return out
