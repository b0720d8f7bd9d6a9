"""The networks that a training went through, as nets of their own."""

from __future__ import annotations

import copy

import torch

from ...network import net_from_state
from ...trajectory import Trajectory, snapshots


def snapshot_nets(net, n_snapshots=None):
    """A net for each checkpoint of the last stage, with its weights and the record of the training up to it.

    Parameters
    ----------
    net : skorch.NeuralNet
        Trained with a recorder; not modified.
    n_snapshots : int, optional
        Nearly equally spaced, the last among them; None: all.

    Returns
    -------
    nets : list of skorch.NeuralNet
        They share all but their modules with the one given, and are not to be trained.
    """
    nets = []
    for checkpoint in snapshots(Trajectory.from_net(net), n_snapshots):
        state = {**vars(net), "module_": _with_values(net.module_, checkpoint)}
        nets.append(net_from_state(type(net), state))
    return nets


def _with_values(module, checkpoint):
    """A copy of a module with the weights and buffers of a checkpoint."""
    memo = {id(v): v.detach().clone() for v in _non_leaves(module)}
    changed = copy.deepcopy(module, memo)
    values = {**checkpoint.parameters, **checkpoint.buffers}
    with torch.no_grad():
        for name, own in (*changed.named_parameters(), *changed.named_buffers()):
            if name in values:
                own.copy_(values[name])
    return changed


def _non_leaves(module):
    """Tensors kept from a training's forward passes, which cannot be copied as they are."""
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                yield value
