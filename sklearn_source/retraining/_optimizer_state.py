"""What an optimizer has come to, by the names of the parameters."""

from __future__ import annotations

import torch

_IMPLEMENTATION = {"foreach", "fused", "capturable", "differentiable"}  # how steps are computed, not which


def read_optimizer(net):
    """State by parameter's name, and the numbers of each group.

    Parameters
    ----------
    net : skorch.NeuralNet
        With one optimizer.

    Returns
    -------
    state : dict of str to dict
    groups : list of dict
    """
    optimizer = net.optimizer_
    names = {id(p): name for name, p in net.module_.named_parameters()}
    state = {names[id(p)]: dict(kept) for p, kept in optimizer.state.items() if kept}
    groups = [
        {key: value for key, value in group.items() if key not in _IMPLEMENTATION and _is_plain(value)}
        for group in optimizer.param_groups
    ]
    return state, groups


def set_optimizer(net, state, groups):
    """Bring the optimizer of an initialized net to what :func:`read_optimizer` gave; in place."""
    named = dict(net.module_.named_parameters())
    for group, values in zip(net.optimizer_.param_groups, groups, strict=True):
        group.update({key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
    for name, kept in state.items():
        like = named[name]
        net.optimizer_.state[like] = {
            key: value.to(like.device if value.ndim else value.device, copy=True) if torch.is_tensor(value) else value
            for key, value in kept.items()
        }


def _is_plain(value):
    if isinstance(value, tuple):
        return all(isinstance(item, (bool, int, float)) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))
