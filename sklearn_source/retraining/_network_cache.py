"""Trained networks in a folder, from which an interrupted training of several goes on."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from pathlib import Path

from ..network import Network, train_to_the_end
from ._cache_folder import cache_folder
from ._cache_key import training_fingerprint
from ._recorded_training import RecordedTraining, is_plain
from ._training_state import training_state


class NetworkCache:
    """Networks of one recipe and its rows on disk: a folder for each, known by its rows and seed.

    Parameters
    ----------
    folder : path-like
        From :func:`.cache_folder`.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self._read = {}

    @classmethod
    def of_training(cls, path, template, start, X, y):
        """The cache of what ``template`` becomes on ``X, y``, None where nothing can be kept.

        Parameters
        ----------
        path : path-like
            May hold the folders of several recipes.
        template, start : skorch.NeuralNet
            The second is the first, initialized.
        X, y : what ``net.fit`` takes
        """
        identity, network = training_fingerprint(template, start, X, y), Network.from_net(start)
        folder = cache_folder(path, *identity, network, network.prepare(X, y))
        return None if folder is None else cls(folder)

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
                    place = self.folder / f".{key}.{uuid.uuid4().hex}.tmp"
                    place.mkdir()
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


def kept_fit(path, seed, net, X, y):
    """``net.partial_fit(X, y)`` of an initialized net, or what it gave before; in place.

    Parameters
    ----------
    path : path-like
        A folder.
    seed : int
        That the global generators were seeded with before the net was initialized.
    net : skorch.NeuralNet
        Its parameters, a module instance with its initial weights among them, say all else that decides its training.
    X, y : what ``net.partial_fit`` takes
    """
    cache, key = NetworkCache.of_training(path, net, net, X, y), f"{seed:x}"
    if cache is None:
        train_to_the_end(net.partial_fit, X, y)
        return
    kept = cache.read([key]).get(key)
    if kept is not None:
        kept.put_into(net, X, y)
        return
    before = training_state(net)
    train_to_the_end(net.partial_fit, X, y)
    if is_plain(before, net):
        cache.write([key], [RecordedTraining.of(net)])
