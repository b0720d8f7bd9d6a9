"""Statistics of curvatures kept between fits, in a folder of files that hold numbers alone.

Two things are kept: the covariances of every checkpoint, which any segmentation of a training shares, and whole fitted
curvatures. Keys are digests of weights, rows, network and settings, so a changed input is a new key; beside each entry
stands what the network gave for a few rows, which is held against what it gives when the entry is read. What neither
can tell is a change of somebody else's code of a curvature: only the classes of this package are kept.
"""

from __future__ import annotations

import os
import weakref

from ..utils._digest import bytes_digest, digest
from ..utils._first_rows import UNSEEN, alike
from ..utils._warnings import warn
from ._covariances import moments
from ._eigen import Basis, EigenCurvature
from ._entries import Entries
from ._fisher import FisherStream
from ._gram import GramCurvature

# The first two are in the stream's digest, as they were resolved; the others change no number.
_NOT_IN_KEY = ("fisher", "n_samples", "cache_size", "memory", "coupling", "n_iter", "max_rows")
_TOLD: weakref.WeakSet = weakref.WeakSet()  # networks whose fit has a file for a folder


def kept_fit(fit, curvature, stream):
    """``fit(stream)``, or what ``curvature.memory`` holds of the same fit of the same stream.

    Warns where ``memory`` is given and rows or network cannot be recognised.
    """
    entries = _entries_of(curvature, stream)
    if entries is None:
        return fit(stream)
    if not stream.identified:
        warn("memory= is ignored: rows of this kind of data have no fingerprint to recognise them by")
        return fit(stream)
    if stream.identity.unknown:
        warn(
            f"memory= is ignored: {', '.join(stream.identity.unknown[:3])} of the network cannot be described, so "
            "that a change there would not be seen. Let net, module and criterion read numbers, arrays and plain "
            "objects"
        )
        return fit(stream)
    stream.notes_first_rows = True
    settings = {name: value for name, value in curvature.get_params().items() if name not in _NOT_IN_KEY}
    checkpoints = [checkpoint.digest for checkpoint in stream.checkpoints]
    key = digest(["curvature", stream.identity.key, type(curvature).__name__, settings, checkpoints, stream.weights])
    last = len(stream.checkpoints) - 1
    found = _read(entries, key, stream, last)
    if found is not None:
        tensors, about = found
        return GramCurvature.unpack(tensors, about) if about["kind"] == "gram" else _eigen_of(tensors, about)
    fitted = fit(stream)
    if type(fitted) is GramCurvature:
        tensors, about = fitted.pack()
        _write(entries, key, stream, last, tensors, {**about, "kind": "gram"})
    elif type(fitted) is EigenCurvature:
        _write(entries, key, stream, last, *_taken_apart(fitted))
    return fitted


def _read(entries, key, stream, c):
    """(tensors, about) of an entry, unless the network gives something else for a few rows at checkpoint ``c`` now."""
    found = entries.read(key, stream.device)
    if found is None or alike(found[1].get("first_rows"), stream.first_rows(c), stream.dtype):
        return found
    warn(
        f"an entry of memory= for the same rows, weights and settings was made when the network gave other numbers: "
        f"{UNSEEN}. It is computed anew and written again"
    )
    return None


def _write(entries, key, stream, c, tensors, about):
    entries.write(key, tensors, {**about, "first_rows": stream.first_rows(c)})


def _taken_apart(fitted):
    """Tensors by name, and a dict for JSON, of an :class:`EigenCurvature`."""
    tensors = {}
    for i, (basis, values) in enumerate(zip(fitted.bases, fitted.eigenvalues)):
        named = {f"left{i}": basis.left, f"right{i}": basis.right, f"values{i}": values}
        tensors.update({name: value for name, value in named.items() if value is not None})
    return tensors, {"kind": "eigen", "n_blocks": len(fitted.bases)}


def _eigen_of(tensors, about):
    """The :class:`EigenCurvature` that :func:`_taken_apart` was given."""
    blocks = range(about["n_blocks"])
    bases = [Basis(tensors.get(f"left{i}"), tensors.get(f"right{i}")) for i in blocks]
    return EigenCurvature(bases, [tensors[f"values{i}"] for i in blocks])


def kept_moments(curvature, stream, c):
    """:func:`moments` at checkpoint ``c`` for ``curvature.basis``, or what ``curvature.memory`` holds of them."""
    entries = _entries_of(curvature, stream)
    if entries is None or not stream.identified or stream.identity.unknown:
        return moments(stream, c, curvature.basis)
    key = bytes_digest(
        "|".join(["moments", stream.identity.key, stream.checkpoints[c].digest, curvature.basis]).encode()
    )
    found = _read(entries, key, stream, c)
    if found is not None:
        tensors, about = found
        return [tuple(tensors.get(f"{side}{i}") for side in "as") for i in range(about["n_blocks"])]
    computed = moments(stream, c, curvature.basis)
    tensors = {f"{side}{i}": m for i, pair in enumerate(computed) for side, m in zip("as", pair) if m is not None}
    _write(entries, key, stream, c, tensors, {"n_blocks": len(computed)})
    return computed


def _entries_of(curvature, stream):
    """Where to keep what is fitted, None for nowhere."""
    if type(curvature).__module__.rpartition(".")[0] != __package__ or type(stream) is not FisherStream:
        return None
    folder = getattr(curvature.memory, "location", curvature.memory)  # of a joblib.Memory, the place alone
    if folder is None or not os.path.isfile(folder):
        return None if folder is None else Entries(folder)
    if stream.network not in _TOLD:  # once a fit, which may ask for every checkpoint
        _TOLD.add(stream.network)
        warn(f"memory= cannot be used, nothing is kept for later fits: {os.fspath(folder)} is a file: name a folder")
    return None
