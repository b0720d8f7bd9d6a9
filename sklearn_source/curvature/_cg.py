"""Conjugate gradients for several right-hand sides at once."""

from __future__ import annotations

import torch


def conjugate_gradient(product, rhs, precondition, *, tol, max_iter):
    """Solve ``A x = rhs`` for symmetric positive definite ``A``, each right-hand side on its own.

    Parameters
    ----------
    product, precondition : callable
        Map a list of tensors (n, ...), one per block, to a list alike: ``A v`` and an approximation of ``A^-1 v``.
    rhs : list of tensor (n, ...)
    tol : float
        Relative residual, in the norm of ``rhs``, at which a right-hand side is done.
    max_iter : int

    Returns
    -------
    solution : list of tensor (n, ...)
    residual : float
        The largest relative residual left.
    n_iter : int
        Iterations used.

    Notes
    -----
    Preconditioned conjugate gradients (Hestenes & Stiefel 1952). Scalars are kept in float64.
    """
    x = [torch.zeros_like(b) for b in rhs]
    r = [b.clone() for b in rhs]
    z = precondition(r)
    p = [v.clone() for v in z]
    rz = _dot(r, z)
    size = _dot(rhs, rhs).sqrt()
    goal = tol * size
    n_iter = 0
    for n_iter in range(1, max_iter + 1):
        active = _dot(r, r).sqrt() > goal
        if not bool(active.any()):
            n_iter -= 1
            break
        ap = product(p)
        alpha = torch.where(active, rz / _dot(p, ap).clamp_min(torch.finfo(torch.float64).tiny), 0.0)
        x = _axpy(alpha, p, x)
        r = _axpy(-alpha, ap, r)
        z = precondition(r)
        new = _dot(r, z)
        beta = torch.where(active, new / rz.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
        p = _axpy(beta, p, z)
        rz = new
    left = _dot(r, r).sqrt() / size.clamp_min(torch.finfo(torch.float64).tiny)
    return x, float(left.max()), n_iter


def _dot(u, v):
    return sum((a * b).flatten(1).double().sum(1) for a, b in zip(u, v))


def _axpy(alpha, x, y):
    return [b + alpha.to(b.dtype).view(-1, *[1] * (b.dim() - 1)) * a for a, b in zip(x, y)]
