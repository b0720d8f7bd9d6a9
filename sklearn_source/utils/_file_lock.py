"""One writer at a time among processes: a lock of the operating system, which ends with the process that has it."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path

_PAUSE = 0.1  # seconds between two tries


class FileLock:
    """A lock on what is about to be written, beside which a hidden file stands meanwhile.

    Where the system or the folder allows no locks, there is none.

    Parameters
    ----------
    path : path-like
        What is to be written; it need not exist.
    """

    def __init__(self, path):
        path = Path(path)
        self._file, self._path = None, path.with_name(f".{path.name}.lock")

    def take(self):
        """Try to take the lock.

        Returns
        -------
        taken : bool
            False: another process, or another thread, has it.
        """
        while self._file is None:
            try:
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError:  # a folder that is missing or read-only: the writer will say so
                return True
            file = os.fdopen(descriptor, "r+b", buffering=0)
            try:
                _lock(file)
            except (BlockingIOError, PermissionError):
                file.close()
                return False
            except OSError:  # a file system without locks
                file.close()
                return True
            if not _is_same(file, self._path):  # the last owner removed it between our opening and our locking
                file.close()
                continue
            self._file = file
            with contextlib.suppress(OSError):
                file.truncate(0)
                file.write(f"\n{os.getpid()} on {socket.gethostname()}".encode())
        return True

    def owner(self):
        """Who has it, for people: ``"process 17 on host"``."""
        try:
            with open(self._path, "rb") as file:
                file.seek(1)  # the byte that is locked
                said = file.read(200).decode(errors="replace").strip()
        except OSError:
            said = ""
        return f"process {said}" if said else "another process"

    def wait(self, told):
        """Take the lock, when it is free; ``told(owner)`` is called once before a wait."""
        if self.take():
            return
        told(self.owner())
        while not self.take():
            time.sleep(_PAUSE)

    def release(self):
        """Give it back, and remove the hidden file. Nothing where it is not held."""
        if self._file is None:
            return
        with contextlib.suppress(OSError):  # Windows removes no open files
            self._path.unlink()
        self._file.close()
        self._file = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.release()


def _lock(file):
    """Lock a file, or raise BlockingIOError or PermissionError where it is locked."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_same(file, path):
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
