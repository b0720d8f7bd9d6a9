"""Noise schedules: how much of an image is left at each timestep."""

from __future__ import annotations

import functools

import numpy as np

SCHEDULES = ("cosine", "linear")


@functools.lru_cache
def signal_shares(schedule, n_timesteps):
    """The share of variance that is the image's at each timestep, ``abar_t``: decreasing, (n_timesteps,) of float64."""
    if schedule not in SCHEDULES:
        raise ValueError(f"expected schedule to be one of {list(SCHEDULES)}, got {schedule!r}")
    if schedule == "linear":  # the betas of Ho et al. 2020, for another number of timesteps
        betas = np.linspace(1e-4, 0.02, n_timesteps) * (1000 / n_timesteps)
    else:  # Nichol & Dhariwal 2021, Eq. 17
        steps = np.arange(n_timesteps + 1) / n_timesteps
        shares = np.cos((steps + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = 1 - shares[1:] / shares[:-1]
    shares = np.cumprod(1 - np.minimum(betas, 0.999))
    shares.setflags(write=False)
    return shares
