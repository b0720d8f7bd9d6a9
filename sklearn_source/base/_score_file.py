"""Scores in a file that an interrupted call goes on from."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from ..utils._atomic import atomic_write, cannot_write
from ..utils._config import bytes_for
from ..utils._digest import digest
from ..utils._file_lock import FileLock
from ..utils._first_rows import alike
from ._query_batches import QueryBatches
from ._score_slabs import ScoreSlabs

_FORMAT = 1
_N_SPOTS = 64  # numbers of the file that its record repeats
N_FIRST = 64  # scores by which an estimator is known
FIRST_SCORES = "first scores"


class ScoreFile:
    """A .npy file of scores beside a record of what they are of and which are there, ``NAME.npy.progress.json``.

    A block's scores are on the disk before the record says so, and the record is written whole or not at all: whenever
    the process is killed, what the record says is true. It stays when the file is finished, as the proof of that.

    Parameters
    ----------
    path : path-like
        Ends in ``.npy``.
    shape : tuple of int
        (n_query, n_train).
    identity : callable
        Without arguments: what the scores are known by, a dict of JSON, see :func:`identity_of`.

    Raises
    ------
    ValueError
        If the path has another ending, or its folder is not there.
    FileExistsError
        If there is a file that is not known to hold scores of this shape and identity.
    BlockingIOError
        If another process, or thread, is writing it.
    OSError
        Where the disk is full or the folder read-only; what was written before stays.
    """

    def __init__(self, path: Any, shape: tuple[int, int], identity: Callable[[], dict[str, Any]]):
        self.path, self._shape = Path(os.fspath(path)), shape
        self._record_path = self.path.with_name(f"{self.path.name}.progress.json")
        if self.path.suffix != ".npy":
            raise ValueError(
                f"expected out as a path that ends in .npy, got {str(self.path)!r}: for another format open an array "
                f"of shape {shape} that is assigned to by slices (zarr, h5py) and pass that"
            )
        if not self.path.parent.is_dir():
            raise ValueError(f"expected out in a folder that exists, got {str(self.path)!r}: make the folder first")
        if not shape[0]:
            raise ValueError("expected a query at least, for a file of scores, got none")
        self._identity, self._lock = identity(), FileLock(self.path)
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        self._offset = int(open_memmap(self.path, mode="r").offset)

    def close(self) -> None:
        """Let others write the file."""
        self._lock.release()

    def _open(self):
        """Begin the file or take up what is there, alone where there is anything to write."""
        if self.path.exists():
            self._record = self._read()
            self._require_same()
            if self._record["done"] == [[0, self._shape[0]]]:
                return
        if not self._lock.take():
            raise BlockingIOError(
                errno.EWOULDBLOCK,
                f"expected a file that nobody else writes, but {self._lock.owner()} is writing it: wait for that to "
                "end (the same call then goes on from what is there), or pass another path",
                str(self.path),
            )
        if self.path.exists():
            self._record = self._read()
            self._require_same()
        else:
            self._begin()

    def left(self, batches: QueryBatches) -> QueryBatches:
        """The queries whose scores are not there yet."""
        return batches.without(self._record["done"])

    @contextlib.contextmanager
    def block(self, rows: slice) -> Iterator[Callable]:
        """A function that writes (slice of training rows, scores) of the queries ``rows``.

        When the context ends they are on the disk, and noted.
        """
        n_train = self._shape[1]
        # Not through a memmap: its pages count as the process's memory, and a full disk would kill the process.
        with self._writing():
            opened = open(self.path, "r+b")  # noqa: SIM115
        with opened as file:

            def write(columns, scores):
                scores = np.ascontiguousarray(scores, dtype=np.float32)
                whole = [(rows.start, scores)] if scores.shape[1] == n_train else enumerate(scores, rows.start)
                with self._writing():
                    for row, part in whole:
                        file.seek(self._offset + 4 * (row * n_train + columns.start))
                        file.write(part.data)

            slabs = ScoreSlabs(write, (rows.stop - rows.start, n_train), bytes_for("scores"))
            yield slabs.add
            slabs.finish()
            with self._writing():
                file.flush()
                os.fsync(file.fileno())
        self._note(rows)

    def result(self) -> np.memmap:
        """The scores, read-only: what is changed in the file would be no score any more."""
        return open_memmap(self.path, mode="r")

    def _begin(self):
        """A file without scores. The record comes first: a file without one would be taken for somebody else's."""
        self._record = {
            "format": _FORMAT,
            "file": uuid.uuid4().hex,
            "shape": list(self._shape),
            "of": self._identity,
            "done": [],
            "spots": {},
        }
        self._write()
        with self._writing(), atomic_write(self.path) as temporary:
            open_memmap(temporary, mode="w+", dtype=np.float32, shape=self._shape).flush()

    def _note(self, rows):
        """Say that the scores of some queries are there."""
        present = self._read()
        if present["file"] != self._record["file"]:
            raise FileExistsError(
                f"{self.path} was begun anew by another process meanwhile: let one process at a time write a file"
            )
        self._record["done"] = _merged([*present["done"], [rows.start, rows.stop]])
        self._record["spots"] = {**present["spots"], **self._spots(rows)}
        self._write()

    def _spots(self, rows):
        """Bits of some numbers of the file, by which a change of it is seen: dict of row to bits."""
        n_query, n_train = self._shape
        chosen = np.unique(np.linspace(0, n_query - 1, min(_N_SPOTS, n_query)).round().astype(int)).tolist()
        bits = open_memmap(self.path, mode="r").view(np.uint32)
        return {
            str(row): int(bits[row, (row * 2654435761) % n_train]) for row in chosen if rows.start <= row < rows.stop
        }

    def _require_same(self):
        """Refuse a file of anything else than what is asked for."""
        record, what = self._record, "pass another path, or delete both files to begin anew"
        if record["shape"] != list(self._shape):
            raise FileExistsError(
                f"{self.path} holds scores of shape {tuple(record['shape'])}, expected (n_query, n_train) = "
                f"{self._shape}: {what}"
            )
        known, asked = dict(record["of"]), dict(self._identity)
        same_scores = alike([known.pop(FIRST_SCORES, None)], [asked.pop(FIRST_SCORES, None)], None)
        other = sorted(name for name in {*known, *asked} if known.get(name) != asked.get(name))
        if other:
            raise FileExistsError(
                f"{self.path} holds scores by another estimator or for other queries: {', '.join(other)} "
                f"{'differ' if len(other) > 1 else 'differs'}. To go on, pass the same estimator, fitted on the same "
                f"net and rows, and the same queries; else {what}"
            )
        if not same_scores:
            raise FileExistsError(
                f"{self.path} holds scores by an estimator with the same parameters, network and rows that scored the "
                "first query otherwise: something that it draws at random, or reads, was another. To go on, fit with "
                f"the same integer as random_state, or keep the fitted estimator; else {what}"
            )
        if not self._is_unchanged():
            raise FileExistsError(f"{self.path} was changed since its scores were written: {what}")

    def _is_unchanged(self):
        """Whether the file has the form and the numbers that the record says."""
        try:
            stored = open_memmap(self.path, mode="r")
        except (OSError, ValueError):  # truncated, or another kind of file
            return False
        if (stored.shape, stored.dtype, stored.flags.c_contiguous) != (self._shape, np.float32, True):
            return False
        spots = self._record["spots"].items()
        return all(self._spots(slice(int(row), int(row) + 1)) == {row: bits} for row, bits in spots)

    def _read(self):
        try:
            record = json.loads(self._record_path.read_text(encoding="utf-8"))
            if record["format"] != _FORMAT or not {"file", "shape", "of", "done", "spots"} <= record.keys():
                raise ValueError("another format")
        except FileNotFoundError:
            raise FileExistsError(
                f"{self.path} exists and no {self._record_path.name} beside it says which scores it holds: pass "
                "another path, or delete the file"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileExistsError(
                f"{self._record_path} is no record of a file of scores ({error}): pass another path, or delete it and "
                f"{self.path.name}"
            ) from error
        return record

    def _write(self):
        with self._writing(), atomic_write(self._record_path) as temporary:
            temporary.write_text(json.dumps(self._record), encoding="utf-8")

    @contextlib.contextmanager
    def _writing(self):
        """Say of what the system refuses which file it is about, and what to do."""
        try:
            yield
        except OSError as error:
            again = "repeat the call"
            raise cannot_write(self.path, error, what="scores", again=again, other="file") from error


def identity_of(parts: dict[str, Any], first_scores: np.ndarray) -> dict[str, Any]:
    """What scores in a file are known by: a digest of every part, and some scores, to be compared up to rounding."""
    return {**{name: digest(value) for name, value in parts.items()}, FIRST_SCORES: first_scores.tolist()}


def _merged(ranges):
    """Ranges [start, stop] in order, those that touch made one."""
    merged: list[list[int]] = []
    for start, stop in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], stop)
        else:
            merged.append([start, stop])
    return merged
