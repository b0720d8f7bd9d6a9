"""How queries meet the rows: in which form that is least work, and the sum of what they have in common."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ._dyads import BLOCK, sketching_cost
from ._factored import Factored
from ._low_rank import LowRank, low_rank
from ._pairs import add_pairs, rowwise_pairs
from ._row_gradient import RowGradient

# A block's queries: a matrix of vectors, factored gradients, or few outer products each.
QueryForm = torch.Tensor | Factored | LowRank


@dataclass(frozen=True)
class Meeting:
    """What the queries of one block will meet, and how exactly.

    Attributes
    ----------
    rows : RowGradient
        Any rows of the form that will be met.
    n_rows : int
        How many.
    tol : float or None
        Relative error that every query may have; None: none.
    """

    rows: RowGradient
    n_rows: int
    tol: float | None = None

    def low_rank(
        self, vectors: torch.Tensor | Factored, extra: float = 0.0, extra_per_component: float = 0.0
    ) -> LowRank | None:
        """The queries as outer products, where that is allowed and less work; else None.

        Parameters
        ----------
        vectors : tensor (n_query, groups, out, in), or Factored
        extra : float
            Multiplications that are done once with the queries as they are, and not with outer products.
        extra_per_component : float
            Multiplications that are done once with every outer product.
        """
        if self.tol is None or not len(vectors):
            return None
        n_query = len(vectors)
        per_component = self.n_rows * self.rows.dyad_cost() + extra_per_component
        if isinstance(vectors, Factored):
            exact = n_query * vectors.n_positions * self.n_rows * self.rows.dyad_cost()
        else:
            exact = self.n_rows * self.rows.meeting_cost(n_query) + extra
        most, widest = 0.0, BLOCK
        for width in range(BLOCK, 1 + min(self.rows.shape[1:]) + BLOCK, BLOCK):
            left = (exact - n_query * sketching_cost(self.rows.shape, width)) / per_component
            if left < n_query * max(1, width - BLOCK):  # as many columns are taken for ranks above that
                break
            most, widest = left, width
        # Some queries may need more than most of them do.
        return low_rank(vectors, self.tol, most, 2 * widest) if most else None


def add_inner(out: torch.Tensor, queries: QueryForm, rows: RowGradient) -> torch.Tensor:
    """``out[q, m] += <V_q, G_m>`` in place, and ``out`` (n_query, B), for queries in any form."""
    if isinstance(queries, LowRank):
        return queries.inner_(rows, out)
    if isinstance(queries, Factored):
        return add_pairs(out, queries, rows)
    return rows.inner_(queries, out)


def rowwise_inner(queries: QueryForm, rows: RowGradient) -> torch.Tensor:
    """(B,) inner products of every row with the query of its place, for queries in any form."""
    if isinstance(queries, Factored):
        return rowwise_pairs(queries, rows)
    return rows.rowwise_inner(queries.matrix().flatten(1) if isinstance(queries, LowRank) else queries)
