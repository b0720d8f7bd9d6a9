"""From noise to images: steps of the reverse process."""

from __future__ import annotations

from numbers import Real

import numpy as np
import torch

from ..utils._argument_checks import check_choice, check_count, check_verbose

METHODS = ("ddpm", "ddim")


def check_sampling(n, n_steps, n_timesteps, method, clip, verbose):
    """Numbers of rows and of steps, of the arguments of ``DiffusionNet.sample``; ValueError where one is none."""
    check_choice("method", method, METHODS)
    check_verbose(verbose)
    n, n_steps = check_count("n", n), n_timesteps if n_steps is None else check_count("n_steps", n_steps)
    if n_steps > n_timesteps:
        raise ValueError(f"expected n_steps up to the {n_timesteps} timesteps of the net, got {n_steps}")
    pair = isinstance(clip, (tuple, list)) and len(clip) == 2 and all(isinstance(one, Real) for one in clip)
    if clip is not None and not (pair and clip[0] < clip[1]):
        raise ValueError(f"expected clip to be (lowest, highest) of the rows, or None, got {clip!r}")
    return n, n_steps


def reverse_steps(n_timesteps, n_steps):
    """Pairs (timestep, the one after it, -1 for the image itself) of the reverse process, from the noisiest on."""
    steps = np.unique(np.linspace(0, n_timesteps - 1, n_steps).round().astype(int))[::-1]
    return list(zip(steps.tolist(), [*steps[1:].tolist(), -1]))


def image_and_noise(noisy, output, share, target):
    """What a model's output says of the image and of the noise in it."""
    image_scale, noise_scale = share**0.5, (1 - share) ** 0.5
    if target == "v":
        return image_scale * noisy - noise_scale * output, noise_scale * noisy + image_scale * output
    return (noisy - noise_scale * output) / image_scale, output


def reverse_step(noisy, image, noise, share, next_share, method, generator):
    """Less noise: what follows ``noisy`` at the share of signal ``next_share``, 1 for the image.

    ``"ddpm"`` draws from the posterior given the image (Ho et al. 2020, Eq. 7), ``"ddim"`` keeps the noise (Song et al.
    2021, Eq. 12 without variance).
    """
    if method == "ddim":
        return next_share**0.5 * image + (1 - next_share) ** 0.5 * noise
    alpha = share / next_share
    mean = (next_share**0.5 * (1 - alpha) * image + alpha**0.5 * (1 - next_share) * noisy) / (1 - share)
    variance = (1 - alpha) * (1 - next_share) / (1 - share)
    fresh = torch.randn(noisy.shape, generator=generator, dtype=torch.float64).to(noisy)
    return mean + variance**0.5 * fresh
