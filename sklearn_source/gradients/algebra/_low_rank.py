"""Queries as few outer products each, within a tolerance: ``V_q = sum_j u_qj w_qj^T + E_q``, ``|E_q| <= tol |V_q|``.

What a curvature makes of a gradient is a full matrix, but numerically one of few outer products, which meet a row's
factored gradient in ``T (in + out)`` multiplications each, in place of the ``in * out`` of the matrix.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from ._dyads import Dyads, dyads_of
from ._products import CHUNK_BYTES, even_chunks
from ._row_gradient import RowGradient

# Components that meet the rows together: many enough for a product's full rate.
_TOGETHER = 2048
# Queries after which factoring is given up where ranks are far too high.
_PILOT = 8


@dataclass(frozen=True)
class LowRank:
    """Queries as sums of outer products, of as many as each needs.

    Components are ordered by their number within a query, and within a number by ``order``, so that adding up those of
    each query is adding stretches.

    Attributes
    ----------
    left : tensor (groups, R, out)
        The components' output sides, of all queries together.
    right : tensor (groups, R, in)
        Their input sides.
    order : tensor of int64 (n_query,)
        The queries, those of most components first.
    counts : list of int
        How many queries have a first component, a second, ...; the sum is R.
    """

    left: torch.Tensor
    right: torch.Tensor
    order: torch.Tensor
    counts: list[int]

    @classmethod
    def of(cls, parts: list[Dyads]) -> LowRank:
        """From the components of the queries, one query's after the other's.

        Parameters
        ----------
        parts : list of Dyads
            Of some queries each, in the order of the queries.
        """
        ranks = torch.cat([part.ranks for part in parts])
        order = torch.argsort(ranks, descending=True, stable=True)
        sorted_ranks, first = ranks[order], (ranks.cumsum(0) - ranks)[order]
        counts = [int((sorted_ranks > j).sum()) for j in range(int(ranks.max()))]
        places = torch.cat([first[:0]] + [first[:count] + j for j, count in enumerate(counts)])
        left, right = torch.cat([part.left for part in parts], dim=1), torch.cat([part.right for part in parts], dim=1)
        places, order = places.to(left.device), order.to(left.device)
        return cls(left[:, places], right[:, places], order, counts)

    def __len__(self):
        return len(self.order)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(groups, out, in) of one query's matrix."""
        return (len(self.left), self.left.shape[2], self.right.shape[2])

    @property
    def n_components(self) -> int:
        """R, the sum of the queries' ranks."""
        return self.left.shape[1]

    @property
    def ranks(self) -> torch.Tensor:
        """(n_query,) components of each query, in the order of the queries."""
        ranks = torch.zeros_like(self.order)
        for count in self.counts:
            ranks[self.order[:count]] += 1
        return ranks

    def tensors(self) -> list[torch.Tensor]:
        """The tensors held, for counting memory."""
        return [self.left, self.right]

    def rotate(self, left: torch.Tensor | None, right: torch.Tensor | None) -> LowRank:
        """``left^T V_q right``; None for the identity. Cost: ``R (out^2 + in^2)`` multiplications."""
        u, w = self.left if left is None else self.left @ left, self.right if right is None else self.right @ right
        return LowRank(u, w, self.order, self.counts)

    def matrix(self) -> torch.Tensor:
        """(n_query, groups, out, in), which the other methods avoid."""
        total = self.left.new_zeros((len(self), *self.shape))
        for components, queries in self._stretches(slice(0, self.n_components)):
            u, w = self.left[:, components].transpose(0, 1), self.right[:, components].transpose(0, 1)
            total[self.order[queries]] += u.unsqueeze(3) * w.unsqueeze(2)
        return total

    def inner_(self, gradient: RowGradient, out: torch.Tensor) -> torch.Tensor:
        """``out[q, m] += <V_q, G_m>`` in place, and ``out`` (n_query, B).

        Cost: per component and row ``T (in + out)`` multiplications where the rows have factors.
        """
        total = out.new_zeros(out.shape)
        for some in even_chunks(self.n_components, _TOGETHER):
            met = gradient.dyads(self.left[:, some], self.right[:, some])
            for components, queries in self._stretches(some):
                total[queries] += met[components.start - some.start : components.stop - some.start]
        return out.index_add_(0, self.order, total)

    def _stretches(self, some: slice) -> Iterator[tuple[slice, slice]]:
        """Components within a slice of them that are of different queries, and these in ``order``."""
        start = 0
        for count in self.counts:
            low, high = max(start, some.start), min(start + count, some.stop)
            if low < high:
                yield slice(low, high), slice(low - start, high - start)
            start += count


def low_rank(vectors: torch.Tensor | RowGradient, tol: float, most: float, widest: int = 2**16) -> LowRank | None:
    """Every query's matrix as outer products that leave no more than ``tol`` of its Frobenius norm.

    Parameters
    ----------
    vectors : tensor (n_query, groups, out, in), or RowGradient
        The queries.
    tol : float
        Relative to each query's own norm. What is left is measured of the factors that are returned, not estimated.
    most : float
        Components of all queries together that are still of use.
    widest : int, optional
        Columns of a query's sketch that are.

    Returns
    -------
    queries : LowRank or None
        None where more components are needed. A query that is of no low rank among others that are comes out exactly,
        with ``min(out, in)`` components.

    Notes
    -----
    The ranks of a query do not depend on those it comes with. Memory: two chunks of matrices, beside the result.
    """
    parts, found, done = [], 0, 0
    n_query = len(vectors)
    for matrices in _chunks(vectors):
        parts.append(dyads_of(matrices, tol, widest))
        found, done = found + int(parts[-1].ranks.sum()), done + len(matrices)
        if found > most or (done >= _PILOT and found * n_query > most * done):
            return None
    return LowRank.of(parts)


def _chunks(vectors: torch.Tensor | RowGradient) -> Iterable[torch.Tensor]:
    if isinstance(vectors, RowGradient):
        return (matrices for _, matrices in vectors.matrix_chunks())
    step = CHUNK_BYTES // (vectors[:1].numel() * vectors.element_size())
    return (vectors[some] for some in even_chunks(len(vectors), step))
