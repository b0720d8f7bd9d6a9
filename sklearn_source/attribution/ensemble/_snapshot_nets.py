"""The networks that a training went through, as nets of their own."""

from __future__ import annotations

from functools import partial

from torch import nn

from ...network import net_with_changed_module, replace_tensors
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
    chosen = snapshots(Trajectory.from_net(net), n_snapshots)
    return [net_with_changed_module(net, partial(_load, checkpoint)) for checkpoint in chosen]


def _load(checkpoint, module):
    """Give a module that shares its tensors with the net ones of its own, with the values of a checkpoint."""
    values, own = {**checkpoint.parameters, **checkpoint.buffers}, {}
    for name, p in module.named_parameters():
        value = values.get(name, p).detach().to(p.device, copy=True)
        own[name] = nn.Parameter(value, requires_grad=p.requires_grad)
    for name, buffer in module.named_buffers():
        own[name] = values.get(name, buffer).to(buffer.device, copy=True)
    replace_tensors(module, own)
