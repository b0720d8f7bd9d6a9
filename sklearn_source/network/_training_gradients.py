"""The gradient of a training batch as the net itself forms it, at recorded weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from ..stochastic import step_examples
from ..utils._compat_skorch import set_training
from ..utils._compat_torch import checkpointing_off, recurrent_backward_in_evaluation
from ..utils._fastpath import mha_fastpath_off
from ..utils._random import generators_kept
from ._network import Network


def training_gradients(
    network: Network,
    parameters: Mapping[str, torch.Tensor],
    buffers: Mapping[str, torch.Tensor],
    outside: Mapping[str, Any] | None,
    batches: Iterable[tuple[Any, Mapping[str, Any]]],
    *,
    training: bool,
) -> dict[str, torch.Tensor]:
    """Sum of the gradients of the net's own ``get_loss`` over batches, by all that it depends on.

    Parameters
    ----------
    network : Network
        Left with the weights and in the mode that it has.
    parameters, buffers, outside
        As recorded.
    batches : iterable of (batch, random states)
        As the net's iterator gave them; from the states its random draws begin.
    training : bool
        Whether module and criterion are in training mode, and not as they are for row losses.

    Returns
    -------
    gradients : dict of str to Tensor
        On the CPU; a parameter that a batch does not reach is left out.
    """
    net, module = network._private_net.net, network.module
    present = dict(network.parameters()), dict(network.buffers())
    flags = {name: p.requires_grad for name, p in module.named_parameters()}
    criterion = getattr(net, "criterion_", None)
    parts = [*module.modules(), *(criterion.modules() if isinstance(criterion, torch.nn.Module) else ())]
    modes = [part.training for part in parts]
    total: dict[str, torch.Tensor] = {}
    try:
        # A forward pass in training mode writes to buffers: not to the recorded ones.
        network.reload(parameters, {name: value.clone() for name, value in buffers.items()}, outside)
        if training:  # else as row losses are formed: the module in evaluation mode, the criterion as trained
            set_training(net, True)
        named = {name: p.requires_grad_() for name, p in module.named_parameters() if p.is_floating_point()}
        backward = contextlib.nullcontext() if training else recurrent_backward_in_evaluation(module, network.device)
        for batch, states in batches:
            with (
                _random(states, network.device),
                torch.enable_grad(),
                mha_fastpath_off(),
                checkpointing_off(),
                backward,
            ):
                Xi, yi = step_examples(net, batch)
                output = net.infer(Xi) if training else network.infer_batch(Xi)
                loss = net.get_loss(output, yi, X=Xi, training=True)
                gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
            for name, gradient in zip(named, gradients):
                if gradient is not None:
                    dense = gradient.to_dense() if gradient.is_sparse else gradient
                    total[name] = total.get(name, 0) + dense.cpu()
    finally:
        for part, mode in zip(parts, modes):
            part.training = mode
        network.reload(*present)
        for name, p in module.named_parameters():
            p.requires_grad_(flags[name])
    return total


def slope_along(
    network: Network,
    parameters: Mapping[str, torch.Tensor],
    buffers: Mapping[str, torch.Tensor],
    outside: Mapping[str, Any] | None,
    batches: Iterable[tuple[Any, Mapping[str, Any]]],
    gradients: Mapping[str, torch.Tensor],
) -> float | None:
    """Slope of the loss along its gradient, over the slope that the gradient says: 1 where it is the gradient.

    Every parameter counts the same, whatever the size of its gradient.

    It is not where a hook changes gradients within the network, or a function brings a backward pass of its own.

    Parameters
    ----------
    network, parameters, buffers, outside, batches
        As of :func:`training_gradients`.
    gradients : dict of str to Tensor
        What it gave in evaluation mode.

    Returns
    -------
    share : float or None
        None where the precision of the network does not tell.
    """
    net = network._private_net.net
    present = dict(network.parameters()), dict(network.buffers())
    squares = {name: float(g.double().square().sum()) for name, g in gradients.items()}
    squares = {name: square for name, square in squares.items() if square > 1e-4 * max(squares.values())}
    directions = {name: gradients[name] / square for name, square in squares.items()}
    length = sum(1 / square for square in squares.values()) ** 0.5
    size = sum(float(parameters[name].double().square().sum()) for name in squares) ** 0.5
    try:
        network.reload(parameters, buffers, outside)

        def loss(step):
            moved = {n: p + step * directions[n].to(p) if n in directions else p for n, p in parameters.items()}
            network.reload(moved, buffers, outside)
            total = 0.0
            for batch, states in batches:
                with _random(states, network.device), torch.no_grad(), mha_fastpath_off():
                    Xi, yi = step_examples(net, batch)
                    total += float(net.get_loss(network.infer_batch(Xi), yi, X=Xi, training=True))
            return total

        here = abs(loss(0.0))
        step = min(5e-3 * here / len(squares), 1e-2 * size / length) if squares else 0.0
        change = 2 * step * len(squares)
        if change < 1e3 * torch.finfo(network.dtype).eps * here or not change > 0:
            return None
        return (loss(step) - loss(-step)) / change
    finally:
        network.reload(*present)


@contextlib.contextmanager
def _random(states, device):
    """Global generators in recorded states, and put back."""
    cuda = device.type == "cuda"
    with generators_kept(cuda):
        torch.set_rng_state(states["torch"])
        if cuda and "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"], device)
        np.random.set_state(states["numpy"])
        yield
