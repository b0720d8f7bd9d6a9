"""Whether the rows of a training are drawn alike, and how much each is drawn where they are not."""

from __future__ import annotations

from numbers import Integral

import numpy as np
from skorch.dataset import unpack_data
from torch.utils.data import DataLoader

from ..rows import DrawCounter, RowStream

__all__ = ["Draws"]


class Draws:
    """What one stage draws.

    Where torch's own loader shuffles or its batches are of one size, nothing is to be counted. Without shuffling the
    rows of a smaller last batch weigh more, and ``drop_last`` leaves them out: known without looking. Samplers, and
    iterators of other classes, and streams are watched: rows are recognised by their contents.

    Parameters
    ----------
    net : skorch.NeuralNet
    dataset : Dataset or RowStream
        What it trains on.
    """

    def __init__(self, net, dataset):
        options = net.get_params_for("iterator_train")
        self._counter, self._known = None, None
        of_torch = net.iterator_train is DataLoader  # a class of the user's may draw as it likes
        if (
            isinstance(dataset, RowStream)
            or not of_torch
            or options.get("sampler") is not None
            or options.get("batch_sampler") is not None
        ):
            self._counter = DrawCounter(dataset, options.get("collate_fn"))
        elif not options.get("shuffle"):
            self._known = _in_sequence(
                len(dataset), options.get("batch_size", net.batch_size), options.get("drop_last")
            )

    def add(self, batch):
        """Look at a training batch."""
        if self._counter is None:
            return
        try:
            self._counter.add(*unpack_data(batch))
        except Exception:  # batches of the user's own kind: nothing is known of their rows
            self._counter, self._known = None, None

    def per_row(self):
        """How much each row was drawn, ndarray (2, n_rows), see :class:`Stage`, or None: alike, or not known."""
        if self._counter is None:
            return self._known
        draws = self._counter.draws()
        return draws if draws[0].sum() > 0 and self._counter.unknown <= 1e-3 * draws[0].sum() else None


def _in_sequence(n_rows, size, drop_last):
    """Draws of an epoch without shuffling; None where all are alike."""
    if not isinstance(size, Integral) or size < 1 or n_rows <= size or n_rows % size == 0:
        return None
    rest = n_rows % size
    shares, draws = np.full(n_rows, 1.0 / size), np.ones(n_rows)
    shares[-rest:] = 0.0 if drop_last else 1.0 / rest
    draws[-rest:] = 0.0 if drop_last else 1.0
    return np.stack([shares, draws])
