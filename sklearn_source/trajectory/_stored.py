"""Trajectories read from their directories."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..utils._warnings import warn
from ._checkpoint import Checkpoint
from ._files import FORMAT, CheckpointFile, read_tensors
from ._observation_files import StoredObservation
from ._stage import HYPER_PARAMETERS, Stage
from ._store import FIXED, INDEX, OWN_NAMES, VERSION, checksum_of, read_json

__all__ = ["load_directory"]

_READABLE = (1, VERSION)  # of 1, parameters alone were under a digest


def load_directory(path: str | os.PathLike[str]) -> tuple[list[Checkpoint], list[Stage], list[StoredObservation]]:
    """Read the index and open every file of a stored trajectory; the tensors are read when asked for.

    Raises
    ------
    ValueError
        Naming the file that is missing, truncated, foreign, or written by a later version.
    """
    path = Path(path).resolve()
    index = read_json(path / INDEX)
    if index.get("format") != FORMAT:
        raise ValueError(f"{path / INDEX}: expected the index of a trajectory, the file is of another kind")
    if index.get("version") not in _READABLE:
        raise ValueError(
            f"{path / INDEX}: expected version {VERSION} or before, got {index.get('version')!r}. Upgrade "
            "sklearn_source"
        )
    if index.get("status") != "complete":
        raise ValueError(
            f"{path / INDEX}: the training that recorded here did not reach its end, so learning rates are missing. "
            "Train again (overwrite=True replaces what is there)"
        )
    if index.get("ended") is False and index.get("checksum") == checksum_of(index):
        warn(
            f"{path / INDEX}: the training that recorded here did not reach its end, or goes on: this is its record up "
            "to the last checkpoint"
        )
    if index["version"] > 1 and index.get("checksum") != checksum_of(index):
        raise ValueError(
            f"{path / INDEX}: expected the index as it was recorded, but it is damaged or was edited. Restore it, or "
            "record the trajectory again"
        )
    try:
        arrays_path = path / f"arrays-{index['revision']}.safetensors"
        arrays, metadata = read_tensors(arrays_path, seal=index.get("seal"))
        if metadata.get("trajectory") != index["trajectory"]:
            raise ValueError(f"{arrays_path}: the file belongs to another trajectory. Restore it")
        stages = [_load_stage(entry, arrays) for entry in index["stages"]]
        checkpoints = []
        for entry in index["checkpoints"]:
            if not OWN_NAMES.fullmatch(entry["file"]):  # an index must not lead out of its directory
                raise ValueError(f"{path / INDEX}: {entry['file']!r} is no name of a checkpoint file")
            identity = {"trajectory": index["trajectory"], "stage": str(entry["stage"]), "step": str(entry["step"])}
            file = CheckpointFile(path / entry["file"], identity, entry.get("seal"))
            file.parameter_shapes()  # a truncated or foreign file is named now, not in the middle of a computation
            checkpoints.append(Checkpoint.from_file(entry["step"], entry["stage"], entry["digest"], file))
        observations = []
        for entry in index["observations"]:
            if not OWN_NAMES.fullmatch(entry["file"]):
                raise ValueError(f"{path / INDEX}: {entry['file']!r} is no name of an observation's file")
            identity = {"trajectory": index["trajectory"], "stage": str(entry["stage"]), "step": str(entry["step"])}
            file = path / entry["file"]
            observations.append(StoredObservation(entry["step"], entry["stage"], file, identity, entry.get("seal")))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path / INDEX}: the index is damaged ({error!r}). Restore it or record again") from error
    return checkpoints, stages, observations


def _load_stage(entry, arrays):
    def array(name):
        return arrays[f"{entry['index']}:{name}"].numpy()

    groups = tuple({key: _restore(key, value) for key, value in group.items()} for group in entry["groups"])
    hyper = {name: array(f"hyper:{name}") for name in HYPER_PARAMETERS}
    names = ("row_hashes", "exact_hashes")
    hashes = {name: array(name).view(np.uint64) for name in names if f"{entry['index']}:{name}" in arrays}
    fixed = {key: entry[key] for key in FIXED} | {"edits": tuple(map(tuple, entry["edits"]))}
    batches = array("batches") if f"{entry['index']}:batches" in arrays else None
    prefix = f"{entry['index']}:draws:"
    draws = {int(name[len(prefix) :]): values.numpy() for name, values in arrays.items() if name.startswith(prefix)}
    known = {"rows": array("rows"), **hashes, "batches": batches, "draws": draws or None}
    return Stage(**fixed, groups=groups, hyper=hyper, **known)


def _restore(key, value):
    return (
        tuple(value) if isinstance(value, list) and key != "params" else value
    )  # JSON turns (beta1, beta2) into a list
