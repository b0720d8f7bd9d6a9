"""``PReLU``, whose slopes below zero are learned: a kind of layer of few lines.

Without this its gradients are right too, but come from ``torch.func``, a few rows at a time.
"""

from __future__ import annotations

import torch.nn.functional as F

from sklearn_source.gradients.layers import READERS


def _prelu(input, weight):
    """``max(x, 0) + weight * min(x, 0)``: a slope multiplies what is below zero, as the scale of a norm does."""
    if weight.numel() != input.shape[1]:  # one slope for all channels: not said here, so left to torch.func
        return "norm", input, None, None, ()
    return "norm", lambda: input.clamp(max=0), weight, None, ("channel",)


READERS[F.prelu] = _prelu  # by the function that is called, whichever module calls it
