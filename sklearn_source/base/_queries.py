"""The queries' side of gradient methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from numpy.typing import NDArray

from ..gradients.algebra import to_meet
from ..loss import Measurement
from ..rows import Rows
from ..stochastic import Draw
from ._row_gradients import RowGradients, State


class Queries:
    """Gradients of the measurement of some query rows, at any weights.

    Read more in the :ref:`User Guide <add_method>`.

    Parameters
    ----------
    gradients : RowGradients
        Of the fitted method.
    rows : Rows
        The queries.
    index : ndarray of int (n_query,)
        Which of the rows.
    measure : Measurement
        What is attributed.
    n_met : int
        Training rows that will be scored.
    """

    def __init__(self, gradients: RowGradients, rows: Rows, index: NDArray, measure: Measurement, n_met: int):
        self._gradients, self._rows, self._index, self._measure = gradients, rows, index, measure
        self.n_met = n_met
        self._targets: dict[int, Any] = {}

    def __len__(self):
        return len(self._index)

    @property
    def draws(self) -> Sequence[Draw] | None:
        """Where the loss draws: what a query is measured over."""
        return self._rows.draws

    def with_draws(self, draws: Sequence[Draw] | None) -> Queries:
        """The same queries, measured over other draws.

        Parameters
        ----------
        draws : sequence of Draw or None
            None: these.

        Returns
        -------
        queries : Queries
        """
        return Queries(self._gradients, self._rows.with_draws(draws), self._index, self._measure, self.n_met)

    def gradients(self, state: State) -> list[list[Any]]:
        """Gradients of what is measured at the trained weights (the class predicted there), taken at other ones.

        Parameters
        ----------
        state : State
            Where they are taken.

        Returns
        -------
        gradients : list over batches of queries of lists over blocks
            In the form that the layer gives them.
        """
        if state is not self._gradients.trained:
            self._fix_targets()
        parts = []
        for start in self._starts():
            x, y = self._batch(start)
            target = self._targets.get(start)
            parts.append(self._gradients.of_measurement(x, y, self._measure, state, target))
        return parts

    def to_meet(self, state: State, factors: Sequence[Any]) -> list[Any]:
        """Gradients times factors, as a :class:`Term` takes them.

        Parameters
        ----------
        state : State
            Where the gradients are taken.
        factors : list of float or tensor (groups, out, in), one per block
            What the method's formula multiplies this side by.

        Returns
        -------
        values : list, one per block
            For ``Term.values``: factored where that is less work.
        """
        return [to_meet(parts, factor) for parts, factor in zip(zip(*self.gradients(state)), factors)]

    def encoded(self, state: State, encode: Callable[[list[Any]], list[torch.Tensor]]) -> list[torch.Tensor]:
        """Gradients in coordinates of the method's choice.

        Parameters
        ----------
        state : State
            Where the gradients are taken.
        encode : callable
            Maps the gradients of a batch, one per block, to tensors (n, groups, out, in): a curvature's ``encode``.

        Returns
        -------
        vectors : list of tensor (n_query, groups, out, in), one per block
            Of all queries.
        """
        parts = [encode(part) for part in self.gradients(state)]
        return [torch.cat(blocks) if len(blocks) > 1 else blocks[0] for blocks in zip(*parts)]

    def _starts(self):
        return range(0, len(self), self._batch_size)

    def _batch(self, start):
        return self._rows.batch(self._index[start : start + self._batch_size])

    @property
    def _batch_size(self):
        """Queries taken at once: fewer where they are more examples than a training row is."""
        return self._gradients.rows_of_draws(self._rows.draws)

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
