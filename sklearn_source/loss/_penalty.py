"""What a loss asks of the parameters themselves: a penalty in ``get_loss``, or in a criterion that holds parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..utils._compat_torch import tree_map
from ..utils._random import seeded
from ._weighted_mean import TOLERANCE

_PROBES = 8  # random vectors by which the mean curvature of a penalty that is not diagonal is found
_NEGLIGIBLE = 1e-6  # of a gradient


@dataclass(frozen=True)
class Penalty:
    """A part of a loss that is a function of the parameters alone, at the weights at which it was looked for.

    It belongs to no row, but draws the weights back after any row moved them, as a weight decay does.

    Attributes
    ----------
    gradient : dict of str to Tensor
        By name of the parameter, what it adds to the gradient of every batch.
    curvature : dict of str to float
        By name of the parameter, the one number on the diagonal of its Hessian: ``rho`` of a weight decay. 0 where it
        is linear (L1). Where the Hessian is anything else, the mean of its diagonal over the tensor.
    missed : float
        The share of the Hessian that these numbers leave out: 0 where they are all of it.
    """

    gradient: dict[str, torch.Tensor]
    curvature: dict[str, float]
    missed: float


def find_penalty(batch_loss, infer, rows, indices):
    """The penalty in a net's loss at the current weights of its private module.

    ``get_loss`` is asked at outputs that are held constant: what is left of its gradient reads parameters directly, and
    has to be the same for other rows, and fewer. Costs some forward and backward passes of up to seven rows.

    Parameters
    ----------
    batch_loss : BatchLoss
    infer : callable
        From a batch to all that the module returns.
    rows, indices : Rows, ndarray of int
        The training rows.

    Returns
    -------
    penalty : Penalty or None
        None where the loss reads no parameters.
    share : float
        0, or how large the gradient of a part of the loss is that reads parameters and rows, in units of the whole
        gradient of a few rows.
    """
    if batch_loss.is_torchs:
        return None, 0.0
    first = min(4, max(1, len(indices) - 1))
    parts = [part for part in (indices[:first], indices[first : first + max(1, first - 1)]) if len(part)]
    direct = [_direct_gradient(batch_loss, infer, *rows.batch(part)) for part in parts]
    if all(gradient is None for gradient in direct):
        return None, 0.0
    x, y = rows.batch(parts[0])
    parameters = _trainable(batch_loss)
    flat = [_flat(gradient, parameters) for gradient in direct]
    difference = float((flat[0] - flat[-1]).norm())
    tolerance = 10 * TOLERANCE.get(flat[0].dtype, 2e-2)
    size = max(float(g.norm()) for g in flat)
    if difference > tolerance * size:
        share = size / (_norm_of_whole_gradient(batch_loss, infer, x, y) + 1e-300)
        if share > _NEGLIGIBLE:
            return None, share
    gradient = {name: g.detach() for name, g in zip(parameters, _filled(direct[0], parameters))}
    curvature, missed = _curvature_of(batch_loss, infer, x, y, parameters, tolerance)
    return Penalty(gradient, curvature, missed), 0.0


def _trainable(batch_loss):
    """The private module's parameters that are trained, by name."""
    return {n: p for n, p in batch_loss.private_net.net.module_.named_parameters() if p.requires_grad}


def _direct_gradient(batch_loss, infer, x, y, *, create_graph=False):
    """Gradients of ``get_loss`` in the trainable parameters at constant outputs, None for a parameter not read.

    None where no parameter is read.
    """
    parameters = list(_trainable(batch_loss).values())
    # The same noise, if there is any, for every call; the module and the criterion are as for row losses.
    with torch.enable_grad(), seeded(0, parameters[0].device if parameters else "cpu"):
        outputs = tree_map(lambda o: o.detach() if isinstance(o, torch.Tensor) else o, infer(x))
        value = batch_loss.with_parameters(outputs, y, x)
        if not getattr(value, "requires_grad", False):
            return None
        gradient = torch.autograd.grad(value.sum(), parameters, create_graph=create_graph, allow_unused=True)
    return None if all(g is None for g in gradient) else gradient


def _norm_of_whole_gradient(batch_loss, infer, x, y):
    parameters = _trainable(batch_loss)
    with torch.enable_grad(), seeded(0, next(iter(parameters.values())).device):
        value = batch_loss.with_parameters(infer(x), y, x).sum()
        gradient = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
    return float(_flat(gradient, parameters).norm())


def _curvature_of(batch_loss, infer, x, y, parameters, tolerance):
    """One number per parameter for the penalty's Hessian, and the share of it that they leave out."""
    gradient = _direct_gradient(batch_loss, infer, x, y, create_graph=True)
    generator = torch.Generator().manual_seed(0)

    def product(vectors):
        graph = [(g, v) for g, v in zip(gradient, vectors) if g is not None and g.requires_grad]
        if not graph:  # linear wherever it is smooth, as the absolute value is
            return [torch.zeros_like(v) for v in vectors]
        with torch.enable_grad():
            total = sum((g * v).sum() for g, v in graph)
            found = torch.autograd.grad(total, list(parameters.values()), retain_graph=True, allow_unused=True)
        # A norm has no second derivative at zero, and draws nothing there.
        return [torch.nan_to_num(h.detach()) for h in _filled(found, parameters)]

    def signs():
        return [
            (2.0 * torch.randint(2, p.shape, generator=generator) - 1.0).to(p) for p in parameters.values()
        ]  # for which v * Hv has the mean of the diagonal

    ones = product([torch.ones_like(p) for p in parameters.values()])
    vectors = signs()
    products = product(vectors)
    scale = max(float(h.abs().max()) if h.numel() else 0.0 for h in [*ones, *products])
    means = [float(h.double().mean()) for h in ones]

    def missed(means):
        square = sum(float((h - c * v).double().square().sum()) for h, v, c in zip(products, vectors, means))
        return (square / max(sum(float(h.double().square().sum()) for h in products), 1e-300)) ** 0.5

    exact = all(
        float((h - c).abs().max()) <= tolerance * scale and float((g - c * v).abs().max()) <= tolerance * scale
        for h, g, v, c in zip(ones, products, vectors, means) if h.numel()
    )  # fmt: skip
    if not exact:
        pairs = [(vectors, products)]
        for _ in range(_PROBES - 1):
            vectors_ = signs()
            pairs.append((vectors_, product(vectors_)))
        means = [
            sum(float((v[i].double() * h[i].double()).mean()) for v, h in pairs) / len(pairs)
            for i in range(len(parameters))
        ]
    # To a few digits: a weight and its bias with one penalty share a block, whatever their rounding.
    curvature = {name: float(f"{c:.5g}") for name, c in zip(parameters, means)}
    return curvature, 0.0 if exact else missed(means)


def _filled(gradient, parameters):
    """Zeros in the place of None."""
    gradient = [None] * len(parameters) if gradient is None else gradient
    return [torch.zeros_like(p) if g is None else g for g, p in zip(gradient, parameters.values())]


def _flat(gradient, parameters):
    return torch.cat([g.detach().flatten() for g in _filled(gradient, parameters)])
