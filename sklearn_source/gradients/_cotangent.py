"""What is pulled back to give the gradient of every row's loss."""

from __future__ import annotations

import torch


def loss_cotangent(network, output, y, x):
    """Gradient of every row's loss in that row's output, shaped like ``output``."""
    leaf = output.detach().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(network.row_loss(leaf, y, x).sum(), leaf)[0]


def random_cotangent(output):
    """The same made-up numbers for every output of that shape."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output)
