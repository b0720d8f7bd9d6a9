"""The batches that a net's own loader deals in a ``fit``, without the rows in them."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import DataLoader

_KNOWN = {"batch_size", "shuffle", "drop_last"}  # of a loader's options, those that decide its batches


class LoaderPlan:
    """What each epoch of a fit trains on, drawn from the global generator as skorch and torch draw it.

    Parameters
    ----------
    net : skorch.NeuralNet
        Initialized.
    rows : ndarray of int
        Indices of the rows trained on.
    n_valid : int or None
        Rows that each epoch is validated on: their loader draws too.

    Raises
    ------
    ValueError
        If a loader has options that nobody knows how to follow.
    """

    keep_places = False

    def __init__(self, net, rows, n_valid):
        self.rows, self.n_epochs = rows, int(net.max_epochs)
        self.training = _loader(net, len(rows), training=True)
        self.validation = None if n_valid is None else _loader(net, n_valid, training=False)

    def deal(self, unit, draw):
        """(rows, n_dealt) of the batches of one epoch after the other, from the present state of torch's generator.

        ``draw()`` lets lazy layers draw their weights, as they do in the first step.
        """
        batches = _batches(self.training)
        draw()
        return self._epochs(batches, torch.get_rng_state())

    def _epochs(self, batches, state):
        for epoch in range(self.n_epochs):
            if epoch > 0:
                with torch.random.fork_rng(devices=()):
                    torch.set_rng_state(state)
                    if self.validation is not None:
                        _batches(self.validation)
                    batches = _batches(self.training)
                    state = torch.get_rng_state()
            yield [(self.rows[batch], len(batch)) for batch in batches]


def _batches(loader):
    """Places of the rows of each batch of an epoch, after the same draws as by iterating over the loader."""
    iter(loader)
    return [np.asarray(places) for places in loader.batch_sampler]


def _loader(net, n_rows, *, training):
    name = "iterator_train" if training else "iterator_valid"
    options = net.get_params_for(name)
    unknown = sorted(name for name, value in options.items() if name not in _KNOWN and value)
    if getattr(net, name) is not DataLoader or unknown:
        raise ValueError(f"{name} deals batches in a way of its own" + (f" ({', '.join(unknown)})" if unknown else ""))
    size = options.get("batch_size", net.batch_size)
    options["batch_size"] = n_rows if size == -1 else size
    return DataLoader(range(n_rows), **options)
