"""A trajectory in a directory: safetensors for the numbers, JSON for the rest. Reading one runs no code from it.

trajectory.json                     the index, written last, so that it never names a file that is not complete
arrays-<revision>.safetensors       hyper-parameters per step, rows, fingerprints
checkpoint-<stage>-<step>.safetensors
observation-<stage>-<step>.safetensors
"""

from __future__ import annotations

import itertools
import json
import math
import re
import time
import uuid
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch

from ..utils._atomic import atomic_write, make_folder, remove_leftovers
from ..utils._digest import bytes_digest
from ._checkpoint import Checkpoint
from ._files import FORMAT, CheckpointFile, read_tensors, write_checkpoint, write_tensors
from ._observation_files import StoredObservation, write_observation
from ._stage import HYPER_PARAMETERS

__all__ = ["TrajectoryDirectory"]

VERSION = 2
INDEX = "trajectory.json"
_SHARE = 10  # an index while a training goes on takes a tenth of its time at most
RUN = "{run}"  # stands for a number of its own in the directory of each training
FIXED = ("index", "start", "end", "optimizer", "n_rows", "continues", "edits")
OWN_NAMES = re.compile(r"((checkpoint|observation)-\d{3,}-\d{9,}(-[0-9a-f]{8})?|arrays-[0-9a-f]{32})\.safetensors")
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
        make_folder(self.path)
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
        self._doomed += [file for file in self.path.iterdir() if overwrite and _LEFT_BEHIND.fullmatch(file.name)]
        remove_leftovers(self.path)
        if INDEX in self._listed:
            index = read_json(self.path / INDEX)
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
    _index_written: float = -math.inf
    _index_took: float = 0.0

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
            if file.name != INDEX and not OWN_NAMES.fullmatch(file.name):
                continue
            try:
                metadata = read_json(file) if file.name == INDEX else read_tensors(file, "none")[1]
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
        index = read_json(self.path / INDEX)
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

    def may_show_beginning(self):
        """Whether an index may be written while a training goes on: no older one gives way, and it costs little."""
        since = time.time() - self._index_written
        is_due = since >= _SHARE * self._index_took or len(self._doomed) > len(self._listed) // 2
        return is_due and not (self._replaces and self._index_written < 0)

    def write_index(self, stages, checkpoints, observations, *, ended=True):
        """Make the directory loadable; every checkpoint and observation has been written here.

        ``ended``: whether the training did, or goes on and may be killed.
        """
        begun = time.time()
        self.check_current()
        revision = uuid.uuid4().hex
        arrays, described = {}, []
        for stage in stages:
            named = {f"hyper:{name}": stage.hyper[name] for name in HYPER_PARAMETERS} | {"rows": stage.rows}
            named |= {f"draws:{step}": drawn for step, drawn in (stage.draws or {}).items()}
            if stage.batches is not None:
                named["batches"] = stage.batches.astype(np.int64)
            for name in ("row_hashes", "exact_hashes"):
                if (hashes := getattr(stage, name)) is not None:
                    named[name] = hashes.view(np.int64)  # torch computes nothing on uint64, and need not
            arrays |= {f"{stage.index}:{name}": torch.tensor(array) for name, array in named.items()}
            described.append({key: getattr(stage, key) for key in (*FIXED, "groups")})
        files = [
            {"step": point.step, "stage": point.stage, "digest": point.digest, **_described_file(point._file)}
            for point in checkpoints
        ]
        old = self.path / f"arrays-{self.revision}.safetensors"
        new = self.path / f"arrays-{revision}.safetensors"
        seal = write_tensors(new, arrays, {"format": FORMAT, "trajectory": self.id})
        index = {"format": FORMAT, "version": VERSION, "status": "complete", "trajectory": self.id}
        index |= {"revision": revision, "seal": seal, "stages": described, "checkpoints": files}
        if not ended:
            index["ended"] = False
        index["observations"] = [
            {"step": seen.step, "stage": seen.stage, **_described_file(seen._file)} for seen in observations
        ]
        self._write_json(index | {"checksum": checksum_of(index)})
        self.revision = revision
        listed = {INDEX, new.name, *(entry["file"] for entry in (*files, *index["observations"]))}
        for file in {old, *self._doomed}:
            if file.name not in listed:
                file.unlink(missing_ok=True)
        self._listed, self._doomed = listed, []
        self._index_written = time.time()
        self._index_took = self._index_written - begun


def _described_file(file):
    return {"file": file.path.name, "seal": file.seal}


def checksum_of(index):
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


def read_json(path):
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path}: expected the index of a trajectory, but it cannot be read ({error}). Give the directory that "
            "Trajectory.save or TrajectoryRecorder(dirname=...) wrote"
        ) from error
    return content if isinstance(content, dict) else {}
