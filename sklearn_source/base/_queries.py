"""The queries' side of gradient methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from numpy.typing import NDArray

from ..gradients.algebra import Meeting, to_meet, weighted_sum
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
    tol : float, optional
        Error that a query's vector may have in every block and :class:`Term`, relative to its own norm there; None:
        none.
    coupling_tol : float, optional
        Error that the directions may have where only how far to go along each layer's is found. None: none.
    """

    def __init__(
        self,
        gradients: RowGradients,
        rows: Rows,
        index: NDArray,
        measure: Measurement,
        n_met: int,
        tol: float | None = None,
        coupling_tol: float | None = None,
    ):
        self._gradients, self._rows, self._index, self._measure = gradients, rows, index, measure
        self.n_met, self.tol, self.coupling_tol = n_met, tol, coupling_tol
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
        rows = self._rows.with_draws(draws)
        return Queries(self._gradients, rows, self._index, self._measure, self.n_met, self.tol, self.coupling_tol)

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
        return list(self._batches(state))

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

    def within_tol(self, values: Sequence[Any], n_checkpoints: int = 1) -> list[Any]:
        """What will meet the training rows, in the form that is least work with the error that is allowed.

        Parameters
        ----------
        values : list of tensor (n_query, size) or Factored, one per block
            In parameters' coordinates, as :meth:`to_meet` gives them.
        n_checkpoints : int, default=1
            Checkpoints whose gradients are summed for every row.

        Returns
        -------
        values : list, one per block
            For ``Term.values``: those given, where nothing else is allowed or less work.
        """
        if self.tol is None:
            return list(values)
        result = []
        for value, probe in zip(values, self._gradients.probe):
            rows = weighted_sum([probe] * n_checkpoints, [1.0] * n_checkpoints)
            vectors = value.unflatten(1, probe.shape) if isinstance(value, torch.Tensor) else value
            found = Meeting(rows, self.n_met, self.tol).low_rank(vectors)
            result.append(value if found is None else found)
        return result

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
        parts = [encode(part) for part in self._batches(state)]  # of the gradients, one batch is held at a time
        return [torch.cat(blocks) if len(blocks) > 1 else blocks[0] for blocks in zip(*parts)]

    def _batches(self, state):
        if state is not self._gradients.trained:
            self._fix_targets()
        for start in self._starts():
            x, y = self._batch(start)
            yield self._gradients.of_measurement(x, y, self._measure, state, self._targets.get(start))

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
