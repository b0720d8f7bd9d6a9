"""Attention's fast path: fused kernels without gradients, whose padded rows differ from those of training."""

from __future__ import annotations

import torch

from ._locks import Switch

_SWITCH = Switch(torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled, False)


def mha_fastpath_off():
    """Let attention compute as in training for as long as the context lasts, in any thread."""
    return _SWITCH
