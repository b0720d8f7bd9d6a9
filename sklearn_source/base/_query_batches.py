"""Queries parted by what fits in memory, each part made ready when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..utils._progress import progress


class QueryBatches:
    """Pairs (slice of queries, what a method needs of them), in order, each made when the iteration comes to it.

    Read more in the :ref:`User Guide <add_method>`.

    Parameters
    ----------
    slices : list of slice
        How the queries are parted: rows of the scores that are computed together.
    make : callable
        From any slice of queries to what ``_score_batches`` takes.
    contents : callable
        Without arguments: a digest of all queries, by which a file of scores knows them.
    verbose : bool, default=False
        Whether a bar counts the parts.
    """

    def __init__(
        self,
        slices: Sequence[slice],
        make: Callable[[slice], Any],
        contents: Callable[[], str],
        verbose: bool = False,
    ):
        self.slices, self.make, self.contents, self._verbose = list(slices), make, contents, verbose

    def __iter__(self) -> Iterator[tuple[slice, Any]]:
        for rows in progress(self.slices, verbose=self._verbose and len(self.slices) > 1, desc="queries"):
            yield rows, self.make(rows)

    def without(self, done: Sequence[Sequence[int]]) -> QueryBatches:
        """The same but for some queries, which are not made.

        Parameters
        ----------
        done : list of (start, stop)
            In order, not overlapping.

        Returns
        -------
        batches : QueryBatches
            Of the other queries, parted where they were, and where some are left out.
        """
        slices = []
        for rows in self.slices:
            start = rows.start
            for begin, end in [*done, (rows.stop, rows.stop)]:
                if start < min(begin, rows.stop):
                    slices.append(slice(start, min(begin, rows.stop)))
                start = max(start, end)
        return QueryBatches(slices, self.make, self.contents, self._verbose)
