"""Tensors and JSON by key, in a folder: read without running code, and only as they were written."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
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


# Of the format of safetensors, which names them otherwise.
_NAMES = {torch.float64: "F64", torch.int64: "I64", torch.float32: "F32", torch.int32: "I32", torch.bool: "BOOL"}


def _save(tensors, path, metadata):
    """``save_file``, whose search for tensors that share memory takes longer than all else of a small entry."""
    if any(tensor.dtype not in _NAMES for tensor in tensors.values()):
        save_file(tensors, str(path), metadata)
        return
    header, parts, end = {"__metadata__": metadata}, [], 0
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].element_size()):  # which keeps all aligned
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
        parts.append(tensor.detach().reshape(-1).view(torch.uint8).numpy())
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for part in parts:
            file.write(part)


def _checksum(key, tensors, text):
    """Of the key, what is said of the tensors, and these."""
    return bytes_digest(f"{_FORMAT}|{key}|{text}|{checksum(tensors)}".encode())
