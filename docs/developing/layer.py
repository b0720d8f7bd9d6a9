"""``PReLU``, whose slopes below zero are learned: a kind of layer of few lines.

Without this its gradients are right too, but come from ``torch.func``, a few rows at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F

from sklearn_source.gradients.layers import Arguments, VectorRule, reads


@dataclass(frozen=True)
class Slope(VectorRule):
    """What multiplies the negative part of a channel, at every position of it."""

    def of_use(self, use, grad, layout):
        grad = grad * use.x.clamp(max=0)  # (B, channels, positions...)
        return layout.split(grad.reshape(*grad.shape[:2], -1).sum(2)).sum(1)  # (B, channels)


@reads(F.prelu)  # the function that is called, whichever module calls it
def _prelu(input, weight):
    """``max(x, 0) + weight * min(x, 0)``; one slope for all channels is left to ``torch.func``."""
    return Arguments(Slope, input, weight) if weight.numel() == input.shape[1] else None
