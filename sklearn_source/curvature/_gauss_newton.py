"""Exact Gauss-Newton products, never forming the matrix."""

from __future__ import annotations

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..gradients import FunctionalForward, from_matrices, to_matrices
from ..utils._compat_torch import quiet_vmap

# Vectors pushed through one batch together: each holds a copy of the batch's activations.
_VECTORS_AT_ONCE = 8


def gauss_newton_product(network, engine, rows, index, vectors, batch_size):
    """``H v`` with ``H = 1/N sum_i J_i^T Lambda_i J_i`` at the network's present weights, on the chosen parameters.

    Parameters
    ----------
    vectors : list of tensor (n, groups, out, in), one per block

    Returns
    -------
    products : list like ``vectors``

    Notes
    -----
    One forward-mode and one reverse-mode pass over the rows per vector (Schraudolph 2002).
    """
    module = network.module
    tangents = {}
    for block, v in zip(engine.blocks, vectors):
        tangents.update(from_matrices(block, v))
    parameters = {name: module.get_parameter(name).detach() for name in tangents}
    wrapped = FunctionalForward(module, network.forward_as_trained)
    total = {name: torch.zeros_like(t) for name, t in tangents.items()}
    for start in range(0, len(index), batch_size):
        x, y = rows.batch(index[start : start + batch_size])

        def forward(p, x=x):
            return torch.func.functional_call(wrapped, {f"module.{k}": v for k, v in p.items()}, (x,))

        with sdpa_kernel(SDPBackend.MATH):
            output, pull = torch.func.vjp(forward, parameters)
        hessian = network.row_loss.output_hessian(output.detach(), y, x)

        def product(tangent, forward=forward, hessian=hessian, pull=pull):
            pushed = _push(forward, parameters, tangent)  # (B, ...)
            return pull(hessian.product(pushed))[0]

        with sdpa_kernel(SDPBackend.MATH):  # attention's fused kernels have no forward mode
            part = quiet_vmap(product, chunk_size=_VECTORS_AT_ONCE)(tangents)
        for name in total:
            total[name] += part[name]
    total = {name: t / len(index) for name, t in total.items()}
    return [to_matrices(block, total) for block in engine.blocks]


def _push(forward, parameters, tangent):
    """``J v``: in forward mode, or where a function has none, as the derivative of ``J^T u`` in ``u``."""
    try:
        return torch.func.jvp(forward, (parameters,), (tangent,))[1]
    except NotImplementedError:
        output, pull = torch.func.vjp(forward, parameters)
        _, push = torch.func.vjp(lambda u: pull(u)[0], torch.zeros_like(output))
        return push(tangent)[0]
