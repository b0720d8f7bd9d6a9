"""A folder of training gradients: files written whole or not at all, known by what they are gradients of."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from ..utils._atomic import atomic_write, cannot_write, remove_leftovers
from ..utils._digest import bytes_digest, checksum
from ..utils._first_rows import UNSEEN, alike

_FORMAT = 1
_RECORD = "store.json"
_DAMAGED = (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OverflowError)


class GradientStore:
    """Training gradients in a folder, which a fitted method reads in place of the training rows.

    Read more in the :ref:`User Guide <gradient_store>`.

    Parameters
    ----------
    path : path-like
        A folder; made where it is missing, in one that exists.
    identity : dict of str to JSON
        What the gradients are of, by name.
    rows_per_file : int
        For a folder that is begun; one that is there keeps its own.
    n_rows : int
        Training rows.
    first_rows : list of list of float
        What the network gives for some rows, by which a change is seen that no digest shows.
    dtype : torch.dtype
        Of the network.

    Attributes
    ----------
    path : Path
        The folder.
    slices : list of slice
        The training rows of every file.
    n_bytes : int
        What the files take now.

    Raises
    ------
    FileExistsError
        If the folder holds anything else.
    ValueError
        If the folder that it is to be made in is missing.
    """

    def __init__(
        self,
        path: Any,
        identity: Mapping[str, Any],
        *,
        rows_per_file: int,
        n_rows: int,
        first_rows: Sequence[Sequence[float]],
        dtype: torch.dtype,
    ):
        self.path = Path(os.fspath(path)).absolute()
        record: dict[str, Any] = {
            "format": _FORMAT,
            "of": dict(identity),
            "rows_per_file": rows_per_file,
            "first_rows": first_rows,
        }
        if self.path.exists():
            record = self._found(record, dtype)
        else:
            self._begin(record)
        size = record["rows_per_file"]
        self.key = _key(record)
        self.slices = [slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size)]
        self._read_before: dict[str, tuple[int, int]] = {}
        remove_leftovers(self.path)

    def __repr__(self):
        return f"GradientStore({str(self.path)!r})"

    @property
    def n_bytes(self) -> int:
        """What the files take now."""
        return sum(file.stat().st_size for file in self.path.iterdir() if file.is_file())

    def missing(self) -> list[slice]:
        """The training rows whose gradients are not there.

        Raises
        ------
        FileExistsError
            If a file of that name is none of this store.
        """
        left = []
        for rows in self.slices:
            file = self._file(rows)
            if not file.exists():
                left.append(rows)
            elif _about(_head(file)).get("store") != self.key:
                raise FileExistsError(f"{file} belongs to another store: delete it, to have it written anew")
        return left

    def write(self, rows: slice, pieces: Sequence[tuple[slice, Mapping[str, torch.Tensor]]]) -> None:
        """Add the gradients of the training rows ``rows``, a piece after the other.

        Raises
        ------
        OSError
            Where the disk is full or the folder read-only; what was written before stays.
        """
        named = {f"{n}/{name}": value for n, (_, tensors) in enumerate(pieces) for name, value in tensors.items()}
        about = {
            "store": self.key,
            "rows": [rows.start, rows.stop],
            "pieces": [[some.start, some.stop] for some, _ in pieces],
        }
        about["checksum"] = _checksum(about, named)
        self._put(self._file(rows), save(named, {"about": json.dumps(about)}))

    def read(self, rows: slice) -> list[tuple[slice, dict[str, torch.Tensor]]]:
        """What :meth:`write` was given, on the CPU.

        Raises
        ------
        FileNotFoundError
            If a file is missing, or the folder.
        ValueError
            If a file is not as it was written, or the folder holds another store.
        """
        file = self._file(rows)
        try:
            content, stat = file.read_bytes(), file.stat()
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{file}, training gradients that the estimator reads, is not there: put the folder back, call "
                "store_gradients with a path again, which writes what is missing, or store_gradients(None), to do "
                "without"
            ) from None
        try:
            about, named = _about(content), load(content)
            known, kept = about["store"], about.pop("checksum")
            sound = known == self.key and about["rows"] == [rows.start, rows.stop]
            if sound and self._read_before.get(file.name) != (stat.st_mtime_ns, stat.st_size):
                sound = kept == _checksum(about, named)
            pieces = [slice(*some) for some in about["pieces"]]
        except _DAMAGED:
            sound = False
        if not sound:
            raise ValueError(
                f"{file} is not as this store wrote it: it was damaged, edited or replaced. Delete it, and call "
                "store_gradients with the path again, which writes what is missing"
            )
        self._read_before[file.name] = stat.st_mtime_ns, stat.st_size
        parts: list[dict[str, torch.Tensor]] = [{} for _ in pieces]
        for name, value in named.items():
            piece, _, rest = name.partition("/")
            parts[int(piece)][rest] = value
        return list(zip(pieces, parts))

    def _file(self, rows):
        return self.path / f"rows-{rows.start:09d}-{rows.stop:09d}.safetensors"

    def _begin(self, record):
        if not self.path.parent.is_dir():
            raise ValueError(f"expected a path in a folder that exists, got {str(self.path)!r}: make the folder first")
        try:
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        self._put(self.path / _RECORD, json.dumps(record).encode())

    def _put(self, file, content):
        try:
            with atomic_write(file) as temporary:
                temporary.write_bytes(content)
        except OSError as error:
            raise _cannot_write(file, error) from error

    def _found(self, asked, dtype):
        """The record of a folder that is there, if it is of the same gradients."""
        what = "Pass another path, or delete the folder to store anew"
        if not self.path.is_dir():
            raise FileExistsError(f"expected a folder for training gradients, got the file {self.path}: {what.lower()}")
        try:
            record = json.loads((self.path / _RECORD).read_text(encoding="utf-8"))
            if record["format"] != _FORMAT or not asked.keys() <= record.keys():
                raise ValueError("another format")
        except FileNotFoundError:
            if all(file.name.startswith(f".{_RECORD}.") for file in self.path.iterdir()):  # begun, and killed
                self._begin(asked)
                return asked
            raise FileExistsError(
                f"{self.path} exists and has no {_RECORD} which says what it holds: pass another path"
            ) from None
        except (*_DAMAGED, NotADirectoryError) as error:
            raise FileExistsError(
                f"{self.path / _RECORD} is no record of training gradients ({error}): {what.lower()}"
            ) from error
        known, of = record["of"], asked["of"]
        other = sorted(name for name in {*known, *of} if known.get(name) != of.get(name))
        if other:
            raise FileExistsError(
                f"{self.path} holds training gradients of something else: {', '.join(other)} "
                f"{'differ' if len(other) > 1 else 'differs'}. {what}"
            )
        if not alike(record["first_rows"], asked["first_rows"], dtype):
            raise FileExistsError(
                f"{self.path} holds training gradients for the same weights and rows, but of a network that gave "
                f"others: {UNSEEN}, as a criterion, a module's code. {what}"
            )
        return record


def _key(record):
    """What the files of a store are marked with."""
    return bytes_digest(json.dumps(record, sort_keys=True).encode())


def _checksum(about, tensors):
    """Of the tensors of a file and of all else that it says of them."""
    return bytes_digest(f"{json.dumps(about, sort_keys=True)}|{checksum(tensors)}".encode())


def _about(content):
    """What a file says of itself."""
    size = int.from_bytes(content[:8], "little")
    return json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["about"])


def _head(file):
    """The beginning of a file, up to its tensors; of one that is no store's file something empty."""
    with file.open("rb") as opened:
        size = opened.read(8)
        content = size + opened.read(min(int.from_bytes(size, "little"), 100_000_000))
    try:
        _about(content)
    except _DAMAGED:
        empty = json.dumps({"__metadata__": {"about": "{}"}}).encode()
        return len(empty).to_bytes(8, "little") + empty
    return content


def _cannot_write(file, error):
    again = "call store_gradients again"
    return cannot_write(file, error, what="training gradients", again=again, other="folder")
