"""Derivatives of row losses in the outputs, every row in its own."""

from __future__ import annotations

import torch


def gradient(losses, output):
    """Gradients of the row losses, each in its own row's output.

    Parameters
    ----------
    losses : callable
        Row losses (B,) as a function of the outputs.
    output : Tensor (B, ...)

    Returns
    -------
    Tensor like ``output``, detached
    """
    leaf = output.detach().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(losses(leaf).sum(), leaf)[0].detach()


def hessian_product(losses, output, vector):
    """Every row's Hessian times ``vector``, which is like ``output``; zero where there is no second derivative."""
    leaf = output.detach().requires_grad_()
    with torch.enable_grad():
        first = torch.autograd.grad(losses(leaf).sum(), leaf, create_graph=True)[0]
        if not first.requires_grad:
            return torch.zeros_like(output)
        second = torch.autograd.grad((first * vector).sum(), leaf, allow_unused=True)[0]
    return torch.zeros_like(output) if second is None else second.detach()
