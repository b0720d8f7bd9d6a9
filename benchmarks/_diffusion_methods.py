"""The methods that ``diffusion_digits.py`` compares, and the control that needs no network."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
from scipy.special import softmax

from sklearn_source import (
    TRAK,
    DiffusionReTrac,
    DiffusionTracIn,
    GradientSimilarity,
    InfluenceFunctions,
    SnapshotInfluence,
    SourceAttribution,
)
from sklearn_source.diffusion import DenoisingLoss

# What is measured: the mean loss over so many timesteps and noises.
GRID = {"n_timesteps": 20, "n_noise": 2}


def every_method(n_draws):
    """Estimators by name."""
    measure = DenoisingLoss(**GRID)
    of_output = TRAK(measurement=DenoisingLoss(**GRID, loss="output"), random_state=0)
    options = {"measurement": measure, "random_state": 0}
    methods = {}
    for n in n_draws:
        methods[f"influence functions, {n} draws"] = InfluenceFunctions(n_draws=n, **options)
        methods[f"SOURCE, {n} draws"] = SourceAttribution(n_segments=1, n_draws=n, **options)
    methods["TRAK"], methods["D-TRAK"] = TRAK(**options), of_output
    methods["gradient similarity"] = GradientSimilarity(**options)
    for rows in ("drawn", "grid"):
        methods[f"DiffusionTracIn, {rows}"] = DiffusionTracIn(rows=rows, measurement=measure)
    methods["DiffusionReTrac, drawn"] = DiffusionReTrac(measurement=measure)
    for n in n_draws[-2:]:
        methods[f"snapshots, {n} draws"] = SnapshotInfluence(n_draws=n, **options)
    return methods


def scores_of(name, method, net, X, queries, cache):
    """Scores and the seconds of processor time they took, kept beside the retrained networks."""
    kept = cache and Path(cache) / "scores" / f"{name.replace(' ', '_')}.npz"
    if kept and kept.exists():
        with np.load(kept) as file:
            return file["scores"], float(file["seconds"])
    start = time.process_time()
    method.fit(net, X)
    method = method.with_residuals(np.ones(len(X))) if name == "D-TRAK" else method
    scores, seconds = method.transform(queries), time.process_time() - start
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, scores=scores, seconds=seconds)
    return scores, seconds


def patch_kernel(net, queries, X, size):
    """Likeness of patches, without a network: how much of a query each row would paint, (n_query, n_train).

    The best denoiser that sees ``size x size`` pixels at a time is known in closed form: for each place it takes a mean
    over the rows' patches, weighted by ``softmax(-|query - row|^2 / 2 sigma^2)``. A row scores its weight, a mean over
    the places and over the noise levels of the grid (after arXiv:2510.14269).
    """
    shares = net._shares()[DenoisingLoss(**GRID).grid(net.n_timesteps)]
    side = math.isqrt(X[0].size)
    of_queries, of_rows = (
        np.lib.stride_tricks.sliding_window_view(rows.reshape(-1, side, side), (size, size), axis=(1, 2)).reshape(
            len(rows), -1, size**2
        )
        for rows in (queries, X)
    )
    scores = np.zeros((len(queries), len(X)))
    for place in range(of_queries.shape[1]):
        squares = ((of_queries[:, None, place] - of_rows[None, :, place]) ** 2).sum(2)
        for share in shares:
            scores += softmax(-squares * share / (2 * (1 - share)), axis=1)
    return scores / (of_queries.shape[1] * len(shares))
