"""Diffusion models: a skorch net that trains and samples one, and what is measured of it."""

from __future__ import annotations

from ._denoising_loss import DenoisingLoss
from ._diffusion_net import DiffusionNet

__all__ = ["DenoisingLoss", "DiffusionNet"]
