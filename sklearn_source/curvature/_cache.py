"""Statistics of curvatures kept between fits by a joblib Memory.

Two things are kept: the covariances of every checkpoint, which any segmentation of a training shares, and whole fitted
curvatures. Keys are digests of weights, rows, network and settings, so a changed input is a new key. What no key can
tell is a change of somebody else's code: only the classes of this package are kept.
"""

from __future__ import annotations

import os

import torch
from sklearn.utils.validation import check_memory

from ..utils._warnings import warn
from ._covariances import moments
from ._fisher import FisherStream

# The first two are in the stream's digest, as they were resolved; the others change no number.
_NOT_IN_KEY = ("fisher", "n_samples", "cache_size", "memory", "coupling", "n_iter", "max_rows")


def kept_fit(fit, curvature, stream):
    """``fit(stream)``, or what ``curvature.memory`` holds of the same fit of the same stream.

    Warns where ``memory`` is given and the rows cannot be recognised.
    """
    memory = _memory_of(curvature, stream)
    if memory is None:
        return fit(stream)
    if not stream.identified:
        warn("memory= is ignored: rows of this kind of data have no fingerprint to recognise them by")
        return fit(stream)
    settings = {name: value for name, value in curvature.get_params().items() if name not in _NOT_IN_KEY}
    checkpoints = [checkpoint.digest for checkpoint in stream.checkpoints]
    key = (stream.digest, type(curvature).__name__, settings, checkpoints, stream.weights)
    return memory.cache(_fit, ignore=["fit", "stream"], verbose=0)(key, fit, stream)


def kept_moments(curvature, stream, c):
    """:func:`moments` at checkpoint ``c`` for ``curvature.basis``, or what ``curvature.memory`` holds of them."""
    memory = _memory_of(curvature, stream)
    if memory is None or not stream.identified:
        return moments(stream, c, curvature.basis)
    key = (stream.digest, stream.checkpoints[c].digest, curvature.basis)
    arrays = memory.cache(_moments, ignore=["stream", "c"], verbose=0)(key, stream, c)
    return [tuple(None if m is None else _tensor(m, stream.device) for m in pair) for pair in arrays]


def _memory_of(curvature, stream):
    """Where to keep what is fitted, None for nowhere."""
    if type(curvature).__module__.rpartition(".")[0] != __package__ or type(stream) is not FisherStream:
        return None
    memory = curvature.memory
    memory = check_memory(os.fspath(memory) if isinstance(memory, os.PathLike) else memory)
    return None if getattr(memory, "location", True) is None else memory


def _fit(key, fit, stream):
    return fit(stream)


def _moments(key, stream, c):
    return [tuple(None if m is None else m.cpu().numpy() for m in pair) for pair in moments(stream, c, key[2])]


def _tensor(array, device):
    return torch.from_numpy(array.copy()).to(device)
