"""Queries of a truth, recognised by their contents."""

from __future__ import annotations

from collections import defaultdict, deque

import numpy as np

from ..utils._warnings import warn
from ._containers import several_inputs
from ._count import n_rows_of
from ._fingerprint import row_hashes


class KnownQueries:
    """The queries that a truth was measured on.

    Parameters
    ----------
    X : array-like or None
        All of them, in the order of the truth; None where nobody kept them.
    n_query : int

    Attributes
    ----------
    hashes : ndarray of uint64, shape (n_query,), or None
        Their fingerprints; None where they have none.
    """

    def __init__(self, X, n_query):
        self._n_query, self.hashes = n_query, None
        if X is None:
            return
        if number_of_rows(X) != n_query:
            raise ValueError(f"expected X_query as the {n_query} queries of the truth, got {number_of_rows(X)} rows")
        self.hashes = row_hashes(X)
        if self.hashes is None:
            warn(
                "queries of this kind have no fingerprint to recognise them by: X_query is ignored, and transform "
                "takes all queries of the truth in its order",
            )

    def positions(self, X):
        """Where the truth has these queries: ndarray of int64."""
        if self.hashes is not None:
            hashes = row_hashes(X)
            if hashes is None:
                raise ValueError("expected queries of the kind of X_query, got some that cannot be recognised")
            return self.recognised(hashes)
        n_rows = number_of_rows(X)
        if n_rows != self._n_query:
            raise ValueError(
                f"expected the {self._n_query} queries that the truth was measured on, in its order, got {n_rows}: "
                "pass all of them, or X_query to the constructor, to have queries recognised"
            )
        return np.arange(n_rows)

    def recognised(self, hashes):
        """Where the truth has queries of these fingerprints."""
        places = defaultdict(deque)
        for position, value in enumerate(self.hashes.tolist()):
            places[value].append(position)
        found = []
        for value in hashes.tolist():
            if value not in places:
                continue
            found.append(places[value][0])
            places[value].rotate(-1)  # equal queries, which differ in their targets perhaps, each in turn
        if len(found) < len(hashes):
            raise ValueError(
                f"{len(hashes) - len(found)} of {len(hashes)} queries are not among those that the truth was measured "
                "on: EmpiricalInfluence can score no others; retrain with them as queries"
            )
        return np.array(found, dtype=np.int64)


def number_of_rows(X):
    """Of anything that holds rows; a list of rows is no list of inputs."""
    return len(X) if isinstance(X, list) and not several_inputs(X) else n_rows_of(X)
