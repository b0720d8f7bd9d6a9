"""The strongest training rows of each query, from scores that come a few columns at a time."""

from __future__ import annotations

import torch


class TopRows:
    """The ``k`` largest (or smallest) columns of a matrix of which only slices are ever there.

    Parameters
    ----------
    k : int
    largest : bool

    Attributes
    ----------
    scores, indices : Tensor (n_queries, k or fewer)
        Of the columns added so far, in order.
    """

    def __init__(self, k: int, *, largest: bool):
        self._k, self._largest = k, largest
        self.scores: torch.Tensor | None = None
        self.indices: torch.Tensor | None = None

    def add(self, columns: slice, scores: torch.Tensor) -> None:
        """Take in the columns ``columns`` of the matrix, ``scores`` (n_queries, width of the slice)."""
        indices = torch.arange(columns.start, columns.stop, device=scores.device).expand(len(scores), -1)
        if self.scores is not None and self.indices is not None:
            scores, indices = torch.cat([self.scores, scores], dim=1), torch.cat([self.indices, indices], dim=1)
        self.scores, kept = torch.topk(scores, min(self._k, scores.shape[1]), dim=1, largest=self._largest, sorted=True)
        self.indices = indices.gather(1, kept)
