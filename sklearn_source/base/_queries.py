"""The queries' side of gradient methods."""

from __future__ import annotations

import torch

from ..gradients.algebra import to_meet


class Queries:
    """Gradients of the measurement of some query rows, at any weights.

    Parameters
    ----------
    gradients : RowGradients
    rows : Rows
    index : ndarray of int
        Which of the rows.
    measure : Measurement
    n_met : int
        Training rows that will be scored.
    """

    def __init__(self, gradients, rows, index, measure, n_met):
        self._gradients, self._rows, self._index, self._measure = gradients, rows, index, measure
        self.n_met = n_met
        self._targets = {}

    def __len__(self):
        return len(self._index)

    def gradients(self, state):
        """Per batch of queries, the list over blocks of their gradients at ``state``.

        Measured everywhere is what is measured at the trained weights: the class predicted there.
        """
        if state is not self._gradients.trained:
            self._fix_targets()
        return [
            self._gradients.of_measurement(*self._batch(start), self._measure, state, self._targets.get(start))
            for start in self._starts()
        ]

    def to_meet(self, state, factors):
        """Per block, the gradients at ``state`` times the block's factor: see :func:`~.gradients.algebra.to_meet`."""
        return [to_meet(parts, factor) for parts, factor in zip(zip(*self.gradients(state)), factors)]

    def encoded(self, state, encode):
        """``encode(gradients)`` batch by batch: per block one tensor (n_query, groups, out, in)."""
        parts = [encode(part) for part in self.gradients(state)]
        return [torch.cat(blocks) if len(blocks) > 1 else blocks[0] for blocks in zip(*parts)]

    def _starts(self):
        return range(0, len(self), self._gradients.batch_size)

    def _batch(self, start):
        return self._rows.batch(self._index[start : start + self._gradients.batch_size])

    def _fix_targets(self):
        """Keep the targets that the measurement has at the trained weights, a batch's under its first position."""
        starts = [start for start in self._starts() if start not in self._targets]
        if starts:
            self._gradients.load(self._gradients.trained)
        for start in starts:
            x, y = self._batch(start)
            with torch.no_grad():
                output = self._gradients.network.forward(x)
                self._targets[start] = self._measure.target(output, y, x)
