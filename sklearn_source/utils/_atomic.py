"""Files written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path


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


def _sync(path, flags):
    """Have what is written to a file, or the names in a folder, on the disk before going on."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
