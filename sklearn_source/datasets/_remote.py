"""Downloading what is too large to come with the package: once, and checked."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from sklearn.datasets import get_data_home

from ..utils._atomic import atomic_write

_TIMEOUT = 30.0  # seconds without a byte from the server


@dataclass(frozen=True)
class RemoteFile:
    """A public file: its name in the data home, where it is published, and the SHA-256 of its bytes."""

    name: str
    url: str
    sha256: str


def fetch_bytes(file, folder, data_home=None, download_if_missing=True):
    """Read a public file from the data home, or download it there.

    Parameters
    ----------
    file : RemoteFile
        Which one.
    folder : str
        Where the file lies below the data home.
    data_home : str or path-like, optional
        The folder for downloads; None: that of :func:`sklearn.datasets.get_data_home`.
    download_if_missing : bool, default=True
        Whether the file may be downloaded.

    Returns
    -------
    content : bytes
        With the checksum of ``file``.

    Raises
    ------
    OSError
        If the file is not there and may not or cannot be downloaded, or if its bytes are not those expected. Nothing is
        left in the data home then that was not there before.
    """
    place = Path(get_data_home(data_home)) / folder / file.name
    by_hand = f"download {file.url} by other means and save it as {place}"
    if place.exists():
        content = place.read_bytes()
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise OSError(f"{place} is not the file published at {file.url}: delete it to have it downloaded again.")
        return content
    if not download_if_missing:
        raise OSError(f"{place} does not exist and download_if_missing=False: pass True, or {by_hand}.")
    try:
        with urllib.request.urlopen(file.url, timeout=_TIMEOUT) as response:
            content = response.read()
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise OSError(f"could not download {file.url} ({error}): try again, or {by_hand}.") from error
    checksum = hashlib.sha256(content).hexdigest()
    if checksum != file.sha256:
        raise OSError(
            f"expected a file with SHA-256 {file.sha256} at {file.url}, got {len(content)} bytes with {checksum}: the "
            "published file has changed, or what came was an error page."
        )
    place.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(place) as temporary:  # a second process may be downloading too
        temporary.write_bytes(content)
    return content
