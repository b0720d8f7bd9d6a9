"""Cotangent columns ``b_c`` of one row: what ``fisher=`` means, written out (METHOD section 3)."""

from __future__ import annotations

import torch

from ._dense import loss_hessian


def unit(output, c) -> torch.Tensor:
    """The basis vector e_c, shaped like ``output``."""
    e = torch.zeros(output.numel(), dtype=output.dtype)
    e[c] = 1.0
    return e.reshape(output.shape)


def hessian_columns(loss_fn):
    """Exact columns for any criterion: an eigen-root of its Hessian in the output, negative eigenvalues clamped."""

    def columns(output, y):
        values, vectors = torch.linalg.eigh(loss_hessian(loss_fn, output, y))
        roots = vectors * values.clamp(min=0.0).sqrt()
        return [roots[:, c].reshape(output.shape) for c in range(output.numel())]

    return columns


def empirical_columns(loss_fn):
    """One column: the gradient of the row's loss, at its true target, in the output."""

    def columns(output, y):
        leaf = output.detach().clone().requires_grad_(True)
        return [torch.autograd.grad(loss_fn(leaf, y), leaf)[0]]

    return columns


def softmax_columns(output, y=None):
    """Cross-entropy on logits (1, C): ``sqrt(p_c) (e_c - p)``."""
    p = torch.softmax(output, dim=-1)
    return [p.reshape(-1)[c].sqrt() * (unit(output, c) - p) for c in range(output.numel())]


def probability_columns(eps=0.0):
    """NLL on softmax outputs p (1, C), ``loss = -log(p_y + eps)``, y ~ p: ``sqrt(p_c) / (p_c + eps) e_c``."""

    def columns(output, y=None):
        p = output.reshape(-1)
        return [p[c].sqrt() / (p[c] + eps) * unit(output, c) for c in range(output.numel())]

    return columns


def mse_columns(output, y=None):
    """Squared error averaged over the outputs: ``sqrt(2 / n_out) e_c``."""
    return [(2.0 / output.numel()) ** 0.5 * unit(output, c) for c in range(output.numel())]


def bernoulli_columns(output, y=None):
    """BCE on logits averaged over the outputs: ``sqrt(p (1 - p) / n_out) e_c``."""
    p = torch.sigmoid(output).reshape(-1)
    return [(p[c] * (1 - p[c]) / output.numel()).sqrt() * unit(output, c) for c in range(output.numel())]


def laplace_columns(output, y=None):
    """Absolute error averaged over the outputs, Fisher of the unit Laplace: ``sqrt(1 / n_out) e_c``."""
    return [(1.0 / output.numel()) ** 0.5 * unit(output, c) for c in range(output.numel())]
