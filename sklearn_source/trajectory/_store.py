"""A trajectory in a directory: safetensors for the numbers, JSON for the rest. Reading one runs no code from it.

trajectory.json                     the index, written last, so that it never names a file that is not complete
arrays-<revision>.safetensors       hyper-parameters per step, rows, fingerprints
checkpoint-<stage>-<step>.safetensors
observation-<stage>-<step>.safetensors
"""

from __future__ import annotations

import itertools
import json
import os
import re
import uuid
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch

from ..utils._atomic import atomic_write
from ..utils._digest import bytes_digest
from ._checkpoint import Checkpoint
from ._files import FORMAT, CheckpointFile, read_tensors, write_checkpoint, write_tensors
from ._observation_files import StoredObservation, write_observation
from ._stage import HYPER_PARAMETERS, Stage

__all__ = ["TrajectoryDirectory", "load_directory"]

VERSION = 2
_READABLE = (1, VERSION)  # of 1, parameters alone were under a digest
INDEX = "trajectory.json"
RUN = "{run}"  # stands for a number of its own in the directory of each training
_FIXED = ("index", "start", "end", "optimizer", "n_rows", "continues", "edits")
_OWN_NAMES = re.compile(r"((checkpoint|observation)-\d{3,}-\d{9,}(-[0-9a-f]{8})?|arrays-[0-9a-f]{32})\.safetensors")
_LEFT_BEHIND = re.compile(
    r"\.(trajectory\.json|(checkpoint|observation|arrays)-[-0-9a-f]+\.safetensors)\.[0-9a-f]{32}\.tmp"
)


class TrajectoryDirectory:
    """A directory that holds one trajectory, open for writing.

    Parameters
    ----------
    path : path-like
        ``{run}`` in it becomes the first number that no directory has.
    overwrite : bool
        Replace a trajectory that the directory holds, once this one is complete: until then the old one can be loaded.
        Files of any other kind are never touched.

    Raises
    ------
    ValueError
        If the directory holds a trajectory and `overwrite` is False, or a foreign file where one of ours must go.
    """

    def __init__(self, path, overwrite=False):
        self.given = path
        self.path = _free_directory(Path(path).resolve())
        self.id = uuid.uuid4().hex
        self.revision = self.id
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path}: expected a directory for the trajectory, got a file. Choose another path")
        self.path.mkdir(parents=True, exist_ok=True)
        old = self._own_files()
        if old and not overwrite:
            raise ValueError(
                f"{self.path}: expected a directory without a trajectory, but it holds one ({old[0].name}, ...). Pass "
                "overwrite=True to replace it, or choose another directory; where clones train, as in a search, let "
                f"each have its own: dirname='{path}/{RUN}'"
            )
        # What the index names, or an older one may: neither rewritten nor removed before another index is there.
        self._replaces = bool(old)
        self._listed, self._doomed = {file.name for file in old}, [file for file in old if file.name != INDEX]
        self._doomed += [file for file in self.path.iterdir() if _LEFT_BEHIND.fullmatch(file.name)] if overwrite else []
        if INDEX in self._listed:
            index = _read_json(self.path / INDEX)
            if index.get("status") == "complete":
                self.revision = index.get("revision")
            else:  # a training that was killed, or goes on and will see that it lost the directory
                self._write_json(self._begun())
            return
        try:
            # Exclusive: of several clones that train at once on the same directory, one wins and the others say so.
            with open(self.path / INDEX, "x", encoding="utf-8") as file:
                json.dump(self._begun(), file)
        except FileExistsError as error:
            raise ValueError(f"{self.path}: another training is recording here. Choose another directory") from error

    # Of a recorder that was pickled before there were such.
    _replaces: bool = False
    _listed: Collection[str] = ()
    _doomed: Sequence[Path] = ()

    def _begun(self):
        return {"format": FORMAT, "version": VERSION, "status": "recording", "revision": self.revision}

    def _write_json(self, index):
        with atomic_write(self.path / INDEX) as temporary:
            temporary.write_text(json.dumps(index, indent=1), encoding="utf-8")

    def _free_name(self, kind, stage, step):
        """A path that the index does not name, nor another training that records here."""
        name = f"{kind}-{stage:03d}-{step:09d}"
        taken = self._replaces or f"{name}.safetensors" in self._listed
        return self.path / (f"{name}-{uuid.uuid4().hex[:8]}.safetensors" if taken else f"{name}.safetensors")

    def _own_files(self):
        own = []
        for file in sorted(self.path.iterdir()):
            if file.name != INDEX and not _OWN_NAMES.fullmatch(file.name):
                continue
            try:
                metadata = _read_json(file) if file.name == INDEX else read_tensors(file, "none")[1]
            except ValueError:
                metadata = {}
            if metadata.get("format") != FORMAT:
                raise ValueError(
                    f"{file}: the trajectory would need this name, but the file was not written by sklearn_source (or "
                    "is "
                    "truncated). Move it away, or choose another directory"
                )
            own.append(file)
        return own

    def check_current(self):
        """Refuse to continue in a directory that another training has written to since."""
        index = _read_json(self.path / INDEX)
        if index.get("revision") != self.revision:
            raise ValueError(
                f"{self.path}: expected the trajectory as this recorder left it, but another training (a copy of this "
                "net?) has written there. Train the copies with different directories"
            )

    def write(self, checkpoint: Checkpoint) -> Checkpoint:
        """Write a checkpoint and return it as one that lives on disk."""
        identity = {"trajectory": self.id, "stage": str(checkpoint.stage), "step": str(checkpoint.step)}
        path = self._free_name("checkpoint", checkpoint.stage, checkpoint.step)
        file = CheckpointFile(path, identity, write_checkpoint(path, checkpoint, identity))
        return Checkpoint.from_file(checkpoint.step, checkpoint.stage, checkpoint.digest, file)

    def write_observation(self, observation):
        """Write an observation and return it as one that lives on disk; None where it cannot be written."""
        identity = {"trajectory": self.id, "stage": str(observation.stage), "step": str(observation.step)}
        path = self._free_name("observation", observation.stage, observation.step)
        seal = write_observation(path, observation, identity)
        return None if seal is None else StoredObservation(observation.step, observation.stage, path, identity, seal)

    def remove(self, checkpoint):
        """Delete the file of a checkpoint that was thinned out; one that the index names, with the next index."""
        if checkpoint.path is None or checkpoint.path.parent != self.path:
            return
        if checkpoint.path.name in self._listed:
            self._doomed = [*self._doomed, checkpoint.path]
        else:
            checkpoint.path.unlink(missing_ok=True)

    def write_index(self, stages, checkpoints, observations):
        """Make the directory loadable; every checkpoint and observation has been written here."""
        self.check_current()
        revision = uuid.uuid4().hex
        arrays, described = {}, []
        for stage in stages:
            named = {f"hyper:{name}": stage.hyper[name] for name in HYPER_PARAMETERS} | {"rows": stage.rows}
            named |= {f"draws:{step}": drawn for step, drawn in (stage.draws or {}).items()}
            if stage.batches is not None:
                named["batches"] = stage.batches.astype(np.int64)
            if stage.row_hashes is not None:
                named["row_hashes"] = stage.row_hashes.view(np.int64)  # torch computes nothing on uint64, and need not
            arrays |= {f"{stage.index}:{name}": torch.tensor(array) for name, array in named.items()}
            described.append({key: getattr(stage, key) for key in (*_FIXED, "groups")})
        files = [
            {"step": point.step, "stage": point.stage, "digest": point.digest, **_described_file(point._file)}
            for point in checkpoints
        ]
        old = self.path / f"arrays-{self.revision}.safetensors"
        new = self.path / f"arrays-{revision}.safetensors"
        seal = write_tensors(new, arrays, {"format": FORMAT, "trajectory": self.id})
        index = {"format": FORMAT, "version": VERSION, "status": "complete", "trajectory": self.id}
        index |= {"revision": revision, "seal": seal, "stages": described, "checkpoints": files}
        index["observations"] = [
            {"step": seen.step, "stage": seen.stage, **_described_file(seen._file)} for seen in observations
        ]
        self._write_json(index | {"checksum": _checksum_of(index)})
        self.revision = revision
        listed = {INDEX, new.name, *(entry["file"] for entry in (*files, *index["observations"]))}
        for file in {old, *self._doomed}:
            if file.name not in listed:
                file.unlink(missing_ok=True)
        self._listed, self._doomed = listed, []


def _described_file(file):
    return {"file": file.path.name, "seal": file.seal}


def _checksum_of(index):
    """Of all that an index says but that."""
    said = json.loads(json.dumps({key: value for key, value in index.items() if key != "checksum"}))
    return bytes_digest(json.dumps(said, sort_keys=True).encode())


def _free_directory(path):
    """The path itself, made; with ``{run}`` in it the first that nobody has, also where many processes look for one."""
    if RUN not in str(path):
        return path
    for run in itertools.count():
        numbered = Path(str(path).replace(RUN, f"{run:03d}"))
        try:
            numbered.mkdir(parents=True)
        except FileExistsError:
            continue
        return numbered


def load_directory(path: str | os.PathLike[str]) -> tuple[list[Checkpoint], list[Stage], list[StoredObservation]]:
    """Read the index and open every file of a stored trajectory; the tensors are read when asked for.

    Raises
    ------
    ValueError
        Naming the file that is missing, truncated, foreign, or written by a later version.
    """
    path = Path(path).resolve()
    index = _read_json(path / INDEX)
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
    if index["version"] > 1 and index.get("checksum") != _checksum_of(index):
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
            if not _OWN_NAMES.fullmatch(entry["file"]):  # an index must not lead out of its directory
                raise ValueError(f"{path / INDEX}: {entry['file']!r} is no name of a checkpoint file")
            identity = {"trajectory": index["trajectory"], "stage": str(entry["stage"]), "step": str(entry["step"])}
            file = CheckpointFile(path / entry["file"], identity, entry.get("seal"))
            file.parameter_shapes()  # a truncated or foreign file is named now, not in the middle of a computation
            checkpoints.append(Checkpoint.from_file(entry["step"], entry["stage"], entry["digest"], file))
        observations = []
        for entry in index["observations"]:
            if not _OWN_NAMES.fullmatch(entry["file"]):
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
    has_hashes = f"{entry['index']}:row_hashes" in arrays
    hashes = array("row_hashes").view(np.uint64) if has_hashes else None
    fixed = {key: entry[key] for key in _FIXED} | {"edits": tuple(map(tuple, entry["edits"]))}
    batches = array("batches") if f"{entry['index']}:batches" in arrays else None
    prefix = f"{entry['index']}:draws:"
    draws = {int(name[len(prefix) :]): values.numpy() for name, values in arrays.items() if name.startswith(prefix)}
    known = {"rows": array("rows"), "row_hashes": hashes, "batches": batches, "draws": draws or None}
    return Stage(**fixed, groups=groups, hyper=hyper, **known)


def _restore(key, value):
    return (
        tuple(value) if isinstance(value, list) and key != "params" else value
    )  # JSON turns (beta1, beta2) into a list


def _read_json(path):
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path}: expected the index of a trajectory, but it cannot be read ({error}). Give the directory that "
            "Trajectory.save or TrajectoryRecorder(dirname=...) wrote"
        ) from error
    return content if isinstance(content, dict) else {}
