"""Rows as the examples that some draws make of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import ArrayLike

from ..rows import Rows
from ..utils._tree import stack_trees
from ._draw import Draw, RowRandom
from ._stochastic_loss import examples_of, row_keys


class DrawnRows(Rows):
    """Every row as one example per draw: tensors (B, n_draws, ...).

    Parameters
    ----------
    rows : Rows
        As they were given.
    example : callable
        The net's: from ``(X, y, random)`` to the inputs and targets of an example per row.
    draws : sequence of Draw
        The same for all rows; what they draw differs by their contents.

    Attributes
    ----------
    given : Rows
    draws : tuple of Draw
    """

    def __init__(self, rows: Rows, example: Callable[..., Any], draws: Sequence[Draw]):
        super().__init__(len(rows), device=rows._device, dtype=rows._dtype, integer_targets=rows._integers)
        self._rows, self._example, self._draws = rows.given, example, tuple(draws)
        self.draws = self._draws
        if not draws:
            raise ValueError("expected at least one draw, got none")
        self.n_features = rows.n_features
        self.has_y = self._of_draws(slice(0, 1), self._draws[:1])[1] is not None

    @property
    def given(self) -> Rows:
        return self._rows

    def with_draws(self, draws: Sequence[Draw] | None) -> Rows:
        if draws is None or tuple(draws) == self.draws:
            return self
        return DrawnRows(self._rows, self._example, draws)

    def batch(self, indices: slice | ArrayLike) -> tuple[Any, Any]:
        return self._of_draws(indices, self._draws)

    def _of_draws(self, indices, draws):
        x, y = self._rows.batch(indices)
        keys = row_keys(x)
        randoms = [RowRandom(keys, draw, self._dtype, self._device) for draw in draws]
        parts = [examples_of(self._example, x, y, random) for random in randoms]
        return stack_trees([x for x, _ in parts], 1), stack_trees([y for _, y in parts], 1)
