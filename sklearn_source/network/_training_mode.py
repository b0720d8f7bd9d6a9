"""What a network does in training and not afterwards, besides dropout and statistics over batches."""

from __future__ import annotations

import contextlib

import torch
from torch import nn

from ..utils._compat_torch import BatchNorm, Dropout, InstanceNorm
from ..utils._random import seeded

# Left in evaluation mode: these are random in training, or read the other rows of the batch.
_EVALUATED = (Dropout, BatchNorm, InstanceNorm, nn.RReLU, nn.MultiheadAttention, nn.RNNBase)


@contextlib.contextmanager
def training_flags(module):
    """Let ``training`` be true, but of layers that are random or mix rows, for as long as the context lasts."""
    layers = [layer for layer in module.modules() if not isinstance(layer, _EVALUATED)]
    before = [layer.training for layer in layers]
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer, flag in zip(layers, before):
            layer.training = flag


def trains_otherwise(module, forward, x):
    """Whether some rows' outputs are others in training, the same ones at every call.

    Parameters
    ----------
    module : torch.nn.Module
        In evaluation mode. What it writes to its buffers is taken back.
    forward : callable
        Through it.
    x : batch

    Returns
    -------
    bool
        False too where chance has a part in it (noise on the inputs), or the training mode fails on these rows.
    """
    device = next(module.parameters()).device
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    outputs = []
    try:
        with torch.no_grad():
            outputs.append(forward(x))
            for seed in (0, 1):
                with training_flags(module), seeded(seed, device):
                    outputs.append(forward(x))
    except (RuntimeError, TypeError, ValueError, KeyError, IndexError, AttributeError):
        return False
    finally:
        for buffer, value in buffers:
            buffer.data.copy_(value)
    evaluated, once, again = outputs
    return once.shape == evaluated.shape and torch.equal(once, again) and not torch.equal(once, evaluated)
