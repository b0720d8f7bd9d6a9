"""A stream whose rows have numbers: counted and fingerprinted once, and the same in every later pass."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset

from ..utils._compat_joblib import own_start_method
from ..utils._config import bytes_for
from ..utils._locks import ThreadLock
from ..utils._random import generators_kept
from ..utils._tree import map_tensors
from ..utils._warnings import warn
from ._stream_readers import BatchReader, RowReader, count_of

_N_HEAD = 64  # first rows, which are looked at time and again
_N_READ = 1024  # rows read together where they are small
_MANY = 20_000_000  # rows after which the first pass says that it goes on
_RESAMPLED, _REPEATS = 1 << 13, 8  # from so many rows on, and so many of each, a stream seems to repeat its rows
_ADVICE = (
    "Rows of a stream are read several times, and a row is known by its place: pass a stream that gives the same rows "
    "in the same order each time (no shuffling, no augmentation, the seed set in __iter__), or write the rows to a "
    "file of an array (numpy.memmap)"
)


class RowStream(Dataset):
    """The rows of a stream, in the order in which it gives them.

    Rows are read from first to last, in passes as many as the work takes: what stands behind the present place is read
    on the way to the next row wanted, what stands before it begins another pass. The first rows are kept.

    Parameters
    ----------
    reader : RowReader or BatchReader

    Attributes
    ----------
    hashes : ndarray of uint64, shape (n_rows,), or None
        Fingerprints, see :func:`row_hashes`; None where batches pad their rows to lengths of their own.
    exact_hashes : ndarray of uint64, shape (n_rows,), or None
        See :func:`exact_row_hashes`.
    has_targets : bool
    n_passes : int
        Passes begun so far.

    Raises
    ------
    ValueError
        Here, if the stream is empty or gives no rows; at any reading, if a pass gives other rows than the first did.

    Notes
    -----
    Eight bytes are held per row, sixteen where there are numbers that float32 cannot hold, and the rows of one reading.
    """

    def __init__(self, reader: RowReader | BatchReader):
        self._reader, self._lock, self._states, self.n_passes = reader, ThreadLock(), None, 1
        rounded, exact = [], []
        with self._own_randomness():
            reader.rewind()
            self._head = part = reader.read(_N_HEAD)
            self._head_size = count_of(part)
            if not self._head_size:
                raise ValueError("expected at least one row, got a stream that ends before its first")
            first = reader.join([reader.take(part, np.arange(1))])
            n_bytes, self.has_targets = sum(leaf.nbytes for leaf in _leaves(first)), first[1] is not None
            self._n_read = int(np.clip(bytes_for("batch") // (4 * max(n_bytes, 1)), 1, _N_READ))
            n_rows = 0
            while size := count_of(part):
                before, n_rows = n_rows, n_rows + size
                rounded.append(reader.hashes(part))
                exact.append(reader.hashes(part, exact=True))
                if before < _MANY <= n_rows:
                    warn(f"a stream has given {_MANY:,} rows and is read on to its end: one without an end has no rows")
                if before.bit_length() < n_rows.bit_length():
                    _warn_resampled(rounded, n_rows)
                part = reader.read(self._n_read)
        known, exact_known = np.concatenate(rounded), np.concatenate(exact)
        self.hashes = known if reader.same_width else None
        same = np.array_equal(known, exact_known)
        self.exact_hashes = exact_known if reader.same_width and not same else None
        self._known, self._is_exact = (known, False) if same else (exact_known, True)
        self._at: int | None = None  # rows of this pass that are read; None: none is under way
        self._warn_repeated()

    @property
    def source(self) -> Any:
        """The stream itself."""
        return self._reader.stream

    def __len__(self) -> int:
        return len(self._known)

    def rows(self, index: np.ndarray) -> tuple[Any, Any]:
        """Rows as one batch (x, y) of tensors.

        Parameters
        ----------
        index : ndarray of int, shape (n,)
            From 0 on, rising, n > 0.
        """
        reader = self._reader
        if index[-1] < self._head_size:
            return reader.join([reader.take(self._head, index)])
        with self._lock, self._own_randomness():
            try:
                return reader.join(self._parts(index))
            except BaseException:
                self._at = None  # where a pass stands is no longer known
                raise

    def _parts(self, index):
        """Pieces that hold the rows, one after the other."""
        if self._at is None or index[0] < self._at:
            self._reader.rewind()
            self._at, self.n_passes = 0, self.n_passes + 1
        parts, found = [], 0
        while found < len(index):
            skipped = index[found] - self._at
            part = self._next(min(self._n_read, skipped or index[-1] + 1 - self._at))
            here = index[found : np.searchsorted(index, self._at)]
            if len(here):
                parts.append(self._reader.take(part, here - (self._at - count_of(part))))
                found += len(here)
        return parts

    def _next(self, n):
        """The next rows of a pass, if they are those of the first."""
        part = self._reader.read(int(n))
        size, start = count_of(part), self._at
        if not size:
            raise ValueError(
                f"the stream ended after {start} rows, where its first pass gave {len(self)}"
                + (": it can be read once only. " if not start else ". ")
                + _ADVICE
            )
        other = np.flatnonzero(self._reader.hashes(part, self._is_exact) != self._known[start : start + size])
        if len(other):
            raise ValueError(f"row {start + other[0]} of the stream is another than in its first pass. {_ADVICE}")
        self._at = start + size
        if self._at == len(self) and count_of(self._reader.read(1)):
            raise ValueError(f"the stream gave more than the {len(self)} rows of its first pass. {_ADVICE}")
        return part

    @contextlib.contextmanager
    def _own_randomness(self):
        """What the stream draws from the global generators goes on from its last reading, and leaves no trace."""
        with generators_kept(cuda=False), own_start_method():
            if self._states is not None:
                python, numpy_, torch_ = self._states
                random.setstate(python)
                np.random.set_state(numpy_)
                torch.set_rng_state(torch_)
            yield
            self._states = random.getstate(), np.random.get_state(), torch.get_rng_state()

    def _warn_repeated(self):
        """Workers that share no rows out each give all of them."""
        source = self.source
        n_workers = getattr(source, "num_workers", 0)
        if n_workers < 2 or not isinstance(getattr(source, "dataset", None), IterableDataset):
            return
        _, counts = np.unique(self._known, return_counts=True)
        if not (counts % n_workers).any():
            warn(
                f"every row of the stream comes {n_workers} times or a multiple of it, and its DataLoader has "
                f"{n_workers} workers: each of them gives all rows. Share them out in the dataset's __iter__ "
                "(torch.utils.data.get_worker_info), or use num_workers=0; scores have a column for every copy"
            )

    def __getstate__(self):
        state = dict(vars(self))
        state["_reader"] = state["_reader"].closed()
        del state["_lock"]
        return {**state, "_at": None}

    def __setstate__(self, state):
        vars(self).update(state, _lock=ThreadLock())


def _warn_resampled(hashes, n_rows):
    """A stream that draws its rows again and again often has no end."""
    if n_rows >= _RESAMPLED and _REPEATS * (n := len(np.unique(np.concatenate(hashes)))) <= n_rows:
        warn(
            f"a stream has given {n_rows:,} rows so far, of which {n:,} are different, and is read on to its end: one "
            "that draws its rows again and again (resampled) may have none. Pass one that gives every row once"
        )


def _leaves(tree):
    found = []
    map_tensors(found.append, tree)
    return found
