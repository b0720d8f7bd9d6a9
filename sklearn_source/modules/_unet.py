"""A small U-Net for images, told a timestep: the denoiser of diffusion models."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn


class UNet(nn.Module):
    """A U-Net with residual blocks, group norm, a time embedding, and attention where the image is smallest.

    Read more in the :ref:`User Guide <diffusion>`.

    Parameters
    ----------
    in_channels : int, default=1
        Of the images.
    channels : sequence of int, default=(16, 32)
        Of the blocks, one entry per resolution; each halves the one before. Multiples of ``n_groups``.
    n_groups : int, default=4
        Of the group norms.
    n_heads : int, default=2
        Of the attention.
    n_classes : int, optional
        Of class-conditional models: adds an embedding of the class to that of the timestep.
    """

    def __init__(
        self,
        in_channels: int = 1,
        channels: Sequence[int] = (16, 32),
        n_groups: int = 4,
        n_heads: int = 2,
        n_classes: int | None = None,
    ):
        super().__init__()
        self.n_frequencies, n_embedded = channels[0], 4 * channels[0]
        self.time = nn.Sequential(
            nn.Linear(2 * self.n_frequencies, n_embedded), nn.SiLU(), nn.Linear(n_embedded, n_embedded)
        )
        self.label = None if n_classes is None else nn.Embedding(n_classes, n_embedded)
        self.first = nn.Conv2d(in_channels, channels[0], 3, padding=1)
        pairs = list(zip(channels, channels[1:]))
        self.down = nn.ModuleList(_Block(a, a, n_embedded, n_groups) for a, _ in pairs)
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs)
        self.middle = _Block(channels[-1], channels[-1], n_embedded, n_groups)
        self.attention = _Attention(channels[-1], n_groups, n_heads)
        self.grow = nn.ModuleList(nn.Conv2d(b, a, 3, padding=1) for a, b in reversed(pairs))
        self.up = nn.ModuleList(_Block(2 * a, a, n_embedded, n_groups) for a, _ in reversed(pairs))
        self.norm = nn.GroupNorm(n_groups, channels[0])
        self.last = nn.Conv2d(channels[0], in_channels, 3, padding=1)

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor, class_labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What is to be found in noisy images.

        Parameters
        ----------
        sample : Tensor (B, channels, height, width)
        timestep : Tensor (B,)
        class_labels : Tensor (B,) of int64, optional

        Returns
        -------
        output : Tensor like ``sample``
        """
        embedded = self.time(_waves(timestep, self.n_frequencies, sample.dtype))
        if self.label is not None:
            embedded = embedded + self.label(class_labels)
        x, kept = self.first(sample), []
        for block, shrink in zip(self.down, self.shrink):
            x = block(x, embedded)
            kept.append(x)
            x = shrink(x)
        x = self.attention(self.middle(x, embedded))
        for grow, block in zip(self.grow, self.up):
            same = kept.pop()
            x = grow(F.interpolate(x, size=same.shape[-2:]))
            x = block(torch.cat([x, same], dim=1), embedded)
        return self.last(F.silu(self.norm(x)))


class _Block(nn.Module):
    """Two convolutions beside a shortcut, the time embedding added between them."""

    def __init__(self, n_in, n_out, n_embedded, n_groups):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(n_groups, n_in), nn.Conv2d(n_in, n_out, 3, padding=1)
        self.time = nn.Linear(n_embedded, n_out)
        self.norm2, self.conv2 = nn.GroupNorm(n_groups, n_out), nn.Conv2d(n_out, n_out, 3, padding=1)
        self.shortcut = nn.Identity() if n_in == n_out else nn.Conv2d(n_in, n_out, 1)

    def forward(self, x, embedded):
        inner = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(embedded))[..., None, None]
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(inner)))


class _Attention(nn.Module):
    """Attention among the pixels of an image, beside a shortcut."""

    def __init__(self, n_channels, n_groups, n_heads):
        super().__init__()
        self.n_heads, self.norm = n_heads, nn.GroupNorm(n_groups, n_channels)
        self.inward, self.outward = nn.Linear(n_channels, 3 * n_channels), nn.Linear(n_channels, n_channels)

    def forward(self, x):
        pixels = self.norm(x).flatten(2).transpose(1, 2)  # (B, pixels, channels)
        heads = self.inward(pixels).unflatten(2, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        return x + self.outward(mixed).transpose(1, 2).unflatten(2, x.shape[2:])


def _waves(timestep, n, dtype):
    """Sines and cosines of the timestep at ``n`` frequencies: (B, 2 n)."""
    frequencies = torch.exp(torch.arange(n, device=timestep.device) * (-math.log(10_000.0) / n))
    angles = timestep[:, None].double() * frequencies.double()
    return torch.cat([angles.sin(), angles.cos()], dim=1).to(dtype)
