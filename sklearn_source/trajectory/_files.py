"""Single files of a stored trajectory: written whole or not at all, read without running code from them."""

from __future__ import annotations

import json
import os

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..utils._atomic import atomic_write
from ..utils._digest import bytes_digest, checksum

__all__ = ["FORMAT", "CheckpointFile", "read_tensors", "write_checkpoint", "write_tensors"]

FORMAT = "sklearn_source.trajectory"
_CHANGED = (
    "expected the file as it was recorded, but what it holds is something else: it is damaged, was edited or replaced. "
    "Restore it, or record the trajectory again"
)


def read_tensors(
    path: str | os.PathLike[str], prefix: str = "", seal: str | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read the tensors of a safetensors file whose names begin with `prefix`.

    Parameters
    ----------
    path : path-like
    prefix : str
        Nothing, or a whole section: ``"p:"``.
    seal : str, optional
        What :func:`write_tensors` returned of the file. None: nothing is known of it.

    Returns
    -------
    tensors : dict of str to Tensor
        Names without the prefix.
    metadata : dict of str to str

    Raises
    ------
    ValueError
        Naming the file, when it is missing, truncated, not a safetensors file, or not as it was written.
    """
    with _Opened(path) as file:
        names = sorted(name for name in file.keys() if name.startswith(prefix))
        # Copied: the file is mapped into memory, and what is kept must not follow it.
        tensors, metadata = {name: file.get_tensor(name).clone() for name in names}, file.metadata() or {}
    if seal is not None:
        _require_as_written(path, prefix, tensors, metadata, seal)
    return {name[len(prefix) :]: value for name, value in tensors.items()}, metadata


def _require_as_written(path, prefix, tensors, metadata, seal):
    require_seal(path, metadata, seal)
    known = json.loads(metadata["sections"])
    if {s: d for s, d in known.items() if f"{s}:".startswith(prefix)} != _sections(tensors):
        raise ValueError(f"{path}: {_CHANGED}")


def require_seal(path, metadata, seal):
    """Refuse a file whose metadata, which hold checksums of its tensors, are others than those written."""
    if seal is not None and _seal(metadata or {}) != seal:
        raise ValueError(f"{path}: {_CHANGED}")


def _seal(metadata):
    return bytes_digest(json.dumps(metadata, sort_keys=True).encode())


def _sections(tensors):
    """Checksums of all tensors whose names begin alike, up to the colon."""
    found = {}
    for name in sorted(tensors):
        found.setdefault(name.partition(":")[0], {})[name] = tensors[name]
    return {section: checksum(named) for section, named in found.items()}


class _Opened:
    """``safe_open`` with one clear error for whatever is wrong with the file."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        try:
            self.file = safe_open(os.fspath(self.path), framework="pt", device="cpu")
            return self.file.__enter__()
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{self.path}: expected a complete safetensors file, but it cannot be read ({error}). It is missing, "
                "truncated or of another kind: restore it, or record the trajectory again"
            ) from error

    def __exit__(self, kind, error, traceback):
        self.file.__exit__(kind, error, traceback)
        if isinstance(error, SafetensorError):
            raise ValueError(f"{self.path}: {_CHANGED} ({error})") from error


class CheckpointFile:
    """Where the tensors of one checkpoint are; reads them when asked.

    Parameters
    ----------
    path : Path
    identity : dict of str to str
        What the file's metadata must say: trajectory, stage and step.
    seal : str, optional
        What :func:`write_tensors` returned of it.
    """

    seal = None  # files of before there was one

    def __init__(self, path, identity, seal=None):
        self.path = path
        self.identity = identity
        self.seal = seal

    def parameters(self):
        return self._read("p:")[0]

    def buffers(self):
        return self._read("b:")[0]

    def optimizer_state(self):
        tensors, metadata = self._read("o:")
        state = json.loads(metadata["optimizer_state"])  # the numbers; None when nothing was recorded
        for key, value in tensors.items():
            entry, name = key.split(":", 1)
            state.setdefault(name, {})[entry] = value
        return state

    def outside(self):
        tensors, metadata = self._read("s:")
        state = json.loads(metadata.get("outside", "null"))  # files of before it was recorded have none
        if state is not None:
            state["values"].update(tensors)
        return state

    def parameter_shapes(self):
        with _Opened(self.path) as file:
            order = json.loads(self.check(file.metadata())["parameters"])
            return {name: tuple(file.get_slice("p:" + name).get_shape()) for name in order}

    def _read(self, prefix):
        # Of parameters the checkpoint itself has a digest.
        tensors, metadata = read_tensors(self.path, prefix, None if prefix == "p:" else self.seal)
        self.check(metadata)
        if prefix == "p:":  # the order is that of the module, safetensors keeps none
            order = json.loads(metadata["parameters"])
            if set(order) != set(tensors):
                raise ValueError(f"{self.path}: {_CHANGED}")
            tensors = {name: tensors[name] for name in order}
        return tensors, metadata

    def check(self, metadata):
        """Check that the file belongs to the trajectory, and return its metadata."""
        expected = {"format": FORMAT, **self.identity}
        actual = {key: (metadata or {}).get(key) for key in expected}
        if actual != expected:
            raise ValueError(
                f"{self.path}: expected the checkpoint {expected}, found {actual}. The file belongs to another "
                "training or "
                "is no checkpoint of a trajectory: restore it, or record the trajectory again"
            )
        require_seal(self.path, metadata, self.seal)
        return metadata


def write_checkpoint(path, checkpoint, identity):
    """Write the tensors and numbers of a checkpoint to one file; returns its seal."""
    state = checkpoint.optimizer_state
    tensors = {"p:" + name: value for name, value in checkpoint.parameters.items()}
    tensors |= {"b:" + name: value for name, value in checkpoint.buffers.items()}
    numbers = None if state is None else {name: {} for name in state}
    for name, entries in (state or {}).items():
        for key, value in entries.items():
            if isinstance(value, torch.Tensor):
                tensors[f"o:{key}:{name}"] = value
            else:
                numbers[name][key] = value
    outside = checkpoint.outside
    if outside is not None:
        values = outside["values"]
        tensors |= {f"s:{key}": value for key, value in values.items() if isinstance(value, torch.Tensor)}
        plain = {key: plain_number(value) for key, value in values.items() if not isinstance(value, torch.Tensor)}
        outside = {**outside, "values": plain}
    order = json.dumps(list(checkpoint.parameters))
    metadata = {"format": FORMAT, **identity, "parameters": order, "optimizer_state": json.dumps(numbers)}
    metadata["outside"] = json.dumps(outside)
    return write_tensors(path, tensors, metadata)


def plain_number(value):
    """A number as JSON has it: complex ones and others beside int, float and bool are left to their repr."""
    if isinstance(value, (bool, int, float)):
        return value
    return value.item() if hasattr(value, "item") else repr(value)


def write_tensors(path, tensors, metadata):
    """Write a safetensors file, whole or not at all; returns its seal, by which changes of anything in it are seen."""
    stored = {name: value.contiguous() for name, value in tensors.items()}
    metadata = {**metadata, "sections": json.dumps(_sections(stored))}
    with atomic_write(path) as temporary:
        save_file(stored, str(temporary), metadata)
    return _seal(metadata)
