"""Curvature statistics kept between fits by a joblib Memory."""

from __future__ import annotations

import os

import numpy as np
import torch
from sklearn.utils.validation import check_memory

from ..utils._digest import digest
from ..utils._warnings import warn
from ._fit import moments
from ._registry import CURVATURES


def cached_curvature(name, stream, memory, identified=True, basis="kfac"):
    """Fit the curvature ``name`` on ``stream``, reusing what ``memory`` holds.

    Two things are kept: the covariances of every checkpoint, which any segmentation shares, and whole curvatures. Keys
    are digests of weights, rows, network and settings, so a changed input is a new key.

    Parameters
    ----------
    identified : bool
        Whether the stream's row keys are fingerprints of the rows' contents. Without them nothing can be reused safely.
    basis : {"kfac", "shampoo"}
        Which covariances EK-FAC and K-FAC take their eigenbases from.
    """
    memory = check_memory(os.fspath(memory) if isinstance(memory, os.PathLike) else memory)
    fit = CURVATURES[name]
    if memory.location is None:
        return fit(stream, None, basis)
    if not identified:
        warn("memory= is ignored: rows of this kind of data have no fingerprint to recognise them by")
        return fit(stream, None, basis)
    kept_moments = memory.cache(_moments, ignore=["stream", "c"], verbose=0)
    kept_curvature = memory.cache(_curvature, ignore=["stream", "compute"], verbose=0)
    base = _key(stream)

    def compute(stream, c):
        found = kept_moments((base, stream.checkpoints[c].digest, basis), stream, c)
        to = stream.network.device
        return [tuple(None if m is None else _tensor(m, to) for m in pair) for pair in found]

    digests = [checkpoint.digest for checkpoint in stream.checkpoints]
    return kept_curvature((base, name, digests, np.asarray(stream.weights), basis), stream, compute)


def _key(stream):
    network, metric = stream.network, stream.metric
    return digest(
        (
            np.asarray(stream.keys)[stream.index],
            network.signature(),
            [(block.name, block.kind, block.parameters, block.shape) for block in stream.blocks],
            stream.fisher,
            (stream.n_samples, stream.seed) if stream.fisher == "sampled" else None,
            None if metric is None else [*metric.roots, *metric.penalty],
        )
    )


def _moments(key, stream, c):
    return [tuple(None if m is None else m.cpu().numpy() for m in pair) for pair in moments(stream, c, key[2])]


def _curvature(key, stream, compute):
    return CURVATURES[key[1]](stream, compute, key[4])


def _tensor(array, device):
    return torch.from_numpy(array.copy()).to(device)
