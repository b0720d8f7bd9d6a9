"""Folders of a cache: one for each training that is known, guarded by what its net gives for a few rows."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import torch

from ..network import training_gradients
from ..utils._atomic import atomic_write, remove_leftovers
from ..utils._digest import bytes_digest
from ..utils._first_rows import N_ROWS, UNSEEN, alike, projected
from ..utils._warnings import warn

_GUARD = "first_rows.json"


def cache_folder(path, key, unknown, network, rows):
    """The folder of a cache in which what this net and these rows gave may be kept; None where nothing may.

    Parameters
    ----------
    path : path-like
        May hold the folders of several trainings.
    key, unknown : str, tuple of str
        Of the :class:`Identity` of all that decides a training.
    network : Network
        At initial weights that are always the same.
    rows : Rows
        The training rows.

    Returns
    -------
    folder : Path or None
        Made. Warns where there is none, and where one of the same key was of another net.

    Raises
    ------
    ValueError
        If the folder cannot be made or written to.
    """
    if unknown:
        warn(
            f"cache= is ignored: {', '.join(unknown[:3])} of the net cannot be described, so that a change would "
            "not be seen. Let the net, its module, criterion and callbacks hold numbers, arrays and plain objects"
        )
        return None
    present, is_other = _first_gradients(network, rows), False
    for number in itertools.count():
        folder = Path(path) / (f"{key}-{number}" if number else key)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            guard = folder / _GUARD
            # What a killed process left half written, under a name with a dot, is no training of another net.
            if not guard.exists() and all(path.name.startswith(".") for path in folder.iterdir()):
                _write(guard, present)
        except OSError as error:
            raise ValueError(
                f"expected cache= to be a folder that can be written to, got {str(path)!r} ({error}): name another"
            ) from error
        if alike(_read(guard), present, network.dtype):
            break
        is_other = True
    remove_leftovers(folder)
    if is_other:
        warn(
            "cache= holds trainings of a net that says the same of itself and whose loss had other gradients: "
            f"{UNSEEN}. They are left alone, and networks are trained anew"
        )
    return folder


def _first_gradients(network, rows):
    """The gradient of the net's own loss of the first rows, parameter by parameter, in numbers."""
    n = min(N_ROWS, len(rows))
    x, y = rows.batch(np.arange(n))
    batch = x, torch.zeros(n, device=network.device) if y is None else y
    states = {
        "torch": torch.Generator().manual_seed(0).get_state(),
        "numpy": np.random.RandomState(0).get_state(),
    }
    if network.device.type == "cuda":
        states["cuda"] = torch.Generator(network.device).manual_seed(0).get_state()
    parameters, buffers = dict(network.parameters()), dict(network.buffers())
    found = training_gradients(network, parameters, buffers, None, [(batch, states)], training=n > 1)
    lengths = [float(gradient.double().norm()) for gradient in found.values()]
    return [lengths, [float(projected(gradient[None])[0]) for gradient in found.values()]]


def _write(path, numbers):
    text = json.dumps(numbers)
    with atomic_write(path, durable=False) as temporary:
        temporary.write_text(json.dumps({"numbers": text, "checksum": bytes_digest(text.encode())}), encoding="utf-8")


def _read(path):
    """What was written; None where nothing was, or it is damaged."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return json.loads(said["numbers"]) if bytes_digest(said["numbers"].encode()) == said["checksum"] else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
