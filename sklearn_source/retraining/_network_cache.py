"""Trained networks in a folder, from which an interrupted training of several goes on."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

from ._recorded_training import RecordedTraining


class NetworkCache:
    """Networks of one recipe and its rows on disk: a folder for each, known by its rows and seed.

    Parameters
    ----------
    path : path-like
        May hold the folders of several recipes.
    fingerprint : str
        Of all else that decides what a training gives.
    """

    def __init__(self, path, fingerprint):
        self.folder = Path(path) / fingerprint
        self.folder.mkdir(parents=True, exist_ok=True)
        self._read = {}

    def read(self, keys):
        """Trainings by key, of those that are there whole; each is read once."""
        for key in set(keys) - self._read.keys():
            if (self.folder / key).is_dir():
                self._read[key] = RecordedTraining.load(self.folder / key)
        return {key: self._read[key] for key in keys if self._read.get(key) is not None}

    def write(self, keys, trainings):
        """Add networks that were trained together; what is no :class:`RecordedTraining` cannot be kept."""
        # All are written before the first counts: one that is trained again is to be in the same company.
        with contextlib.ExitStack() as temporaries:
            written = []
            for key, training in zip(keys, trainings, strict=True):
                if isinstance(training, RecordedTraining):
                    place = Path(tempfile.mkdtemp(prefix=".", dir=self.folder))
                    temporaries.callback(shutil.rmtree, place, ignore_errors=True)
                    training.save(place)
                    written.append((place, self.folder / key))
            for temporary, place in written:
                if place.exists() and RecordedTraining.load(place) is None:
                    shutil.rmtree(place)  # damaged
                try:
                    temporary.rename(place)  # whole or not at all
                except OSError:
                    if not place.is_dir():  # else another process was first, with the same training
                        raise
