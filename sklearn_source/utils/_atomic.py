"""Files written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import time
import uuid
from pathlib import Path

_LEFTOVER, _AN_HOUR = re.compile(r"\..*\.[0-9a-f]{32}\.tmp"), 3600


def make_folder(path):
    """Make a folder and those above it; OSError, of its own kind, that says what to do where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(
            error.errno,
            f"expected a folder that can be made and written to ({error.strerror}), name another",
            str(path),
        ) from error


def cannot_write(path, error, *, what, again, other):
    """What to raise where the disk is full or the folder read-only: the same error, with what to do.

    Parameters
    ----------
    path : path-like
        The file as its user knows it, not the temporary one.
    error : OSError
    what, again, other : str
        What was to be written, the call that goes on from what is there, and what to name another of.

    Returns
    -------
    error : OSError
        Of the kind that its number makes it.
    """
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "make room on the disk" if full else "make the folder writable (and the files in it)"
    return OSError(
        error.errno,
        f"{what} cannot be written ({error.strerror}): {remedy} and {again}, which goes on from what is there, or name "
        f"another {other}",
        str(path),
    )


@contextlib.contextmanager
def atomic_write(path, *, durable=True):
    """Write to a temporary file, which takes the name ``path`` when it is complete and on the disk.

    After an error, an interrupt, or a crash of the machine there is the old file, or the new one, never half of one.
    An error leaves no temporary file.

    Parameters
    ----------
    path : path-like
        In a folder that exists.
    durable : bool, default=True
        Wait until the disk has it. Without that a crash of the machine may leave a name with other content: only for
        what can be made again and holds a checksum, as a cache's entries do.

    Yields
    ------
    temporary : Path
        In the same folder; to be written, and closed, before the context ends.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        if durable:
            _sync(temporary, os.O_RDWR)  # the name must not outlive the content in a crash of the machine
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        with contextlib.suppress(OSError):  # some systems open or sync no folders
            _sync(path.parent, os.O_RDONLY)


def remove_leftovers(folder):
    """Delete what writers that were killed left in a folder: temporary files and folders, an hour old or more.

    Parameters
    ----------
    folder : path-like
    """
    with contextlib.suppress(OSError):  # another process cleans up too, or the folder is read-only
        for entry in list(Path(folder).iterdir()):
            if _LEFTOVER.fullmatch(entry.name) and time.time() - entry.stat().st_mtime > _AN_HOUR:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _sync(path, flags):
    """Have what is written to a file, or the names in a folder, on the disk before going on."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
