"""Tensors and JSON by key, in a folder: read without running code, and only as they were written."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load, save_file

from ..utils._atomic import atomic_write, remove_leftovers
from ..utils._digest import bytes_digest, checksum
from ..utils._warnings import warn

_FORMAT = "sklearn_source.curvature 1"
_DAMAGED = (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, OverflowError)


class Entries:
    """A folder of files, one for each key, with a checksum of all that an entry says.

    Parameters
    ----------
    folder : path-like
        Made where it is missing. Other files in it are left alone.
    """

    def __init__(self, folder):
        self.folder = Path(os.fspath(folder))

    def read(self, key, device):
        """(tensors, about) of an entry, the tensors on a device; None where there is none, or a damaged one."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            warn(f"memory= cannot be read, and what it may hold is computed anew ({error})")
            return None
        try:
            size = int.from_bytes(content[:8], "little")
            metadata = json.loads(content[8 : 8 + size])["__metadata__"]
            tensors, about = load(content), json.loads(metadata["about"])
            given = {
                "format": _FORMAT,
                "about": metadata["about"],
                "checksum": _checksum(key, tensors, metadata["about"]),
            }
            sound = metadata == given
        except _DAMAGED:
            sound = False
        if not sound:
            warn(f"{path} is not as it was written, damaged or of another kind: it is computed anew and written again")
            return None
        laid_out = {name: tensors[name].to(device, copy=True) for name in about["names"]}
        return {n: t.mT if n in about["transposed"] else t for n, t in laid_out.items()}, about["given"]

    def write(self, key, tensors, about):
        """Add an entry. A folder that cannot be written to is no reason to end a fit: it is said, and that is all."""
        # What lies transposed in memory, as eigenvectors do, comes back like that: products round alike.
        turned = [n for n, t in tensors.items() if t.ndim > 1 and not t.is_contiguous() and t.mT.is_contiguous()]
        stored = {n: (t.mT if n in turned else t).detach().cpu().contiguous() for n, t in tensors.items()}
        text = json.dumps({"names": list(tensors), "transposed": turned, "given": about})
        metadata = {"format": _FORMAT, "about": text, "checksum": _checksum(key, stored, text)}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _clean(self.folder)
            with atomic_write(self._path(key), durable=False) as temporary:
                _save(stored, temporary, metadata)
        except (OSError, SafetensorError) as error:
            warn(f"memory= cannot be written, so that nothing is kept for later fits ({error}): name another folder")

    def _path(self, key):
        return self.folder / f"curvature-{key}.safetensors"


@functools.lru_cache(maxsize=100)
def _clean(folder):
    """Once in a process."""
    remove_leftovers(folder)


def _save(tensors, path, metadata):
    """As arrays: of tensors the library asks whether they share memory, longer than the rest of an entry takes."""
    if any(tensor.dtype == torch.bfloat16 for tensor in tensors.values()):  # no array has that
        save_file(tensors, str(path), metadata)
        return
    save_arrays({name: tensor.detach().contiguous().numpy() for name, tensor in tensors.items()}, str(path), metadata)


def _checksum(key, tensors, text):
    """Of the key, what is said of the tensors, and these."""
    return bytes_digest(f"{_FORMAT}|{key}|{text}|{checksum(tensors)}".encode())
