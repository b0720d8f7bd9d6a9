"""Queries of a truth, recognised by their contents."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..utils._warnings import warn
from ._count import count_rows
from ._fingerprint import exact_row_hashes, row_hashes
from ._matching import match_rows


class TruthQueries:
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

    def __init__(self, X: Any, n_query: int):
        self._n_query = n_query
        self.hashes: Any = None
        if X is None:
            return
        if count_rows(X) != n_query:
            raise ValueError(f"expected X_query as the {n_query} queries of the truth, got {count_rows(X)} rows")
        if isinstance(X, np.ndarray) and X.dtype.kind in "fO" and not _is_finite(X):
            raise ValueError("expected X_query as the queries of the truth, got NaN or infinity, which none can hold")
        self._shape = getattr(X, "shape", None)
        self.hashes, self._exact = row_hashes(X), exact_row_hashes(X)
        if self.hashes is None:
            warn(
                "queries of this kind have no fingerprint to recognise them by: X_query is ignored, and transform "
                "takes all queries of the truth in its order",
            )

    def positions(self, X: Any) -> np.ndarray:
        """Where the truth has these queries.

        Parameters
        ----------
        X : array-like
            Queries in any order and number, where the truth knows its own; else all of them, in its order.

        Returns
        -------
        places : ndarray of int64, shape (n_rows,)

        Raises
        ------
        ValueError
            If the truth has others.
        """
        if count_rows(X) == 0:
            raise ValueError("expected at least one query, got X with 0 rows")
        if self.hashes is not None:
            hashes = row_hashes(X)
            if hashes is None:
                raise ValueError("expected queries of the kind of X_query, got some that cannot be recognised")
            shape = getattr(X, "shape", None)
            if shape and self._shape and len(shape) > 1 < len(self._shape) and shape[1:] != self._shape[1:]:
                raise ValueError(f"expected queries of shape (n_query, *{self._shape[1:]}), got {shape}")
            return self.match(hashes, exact_row_hashes(X))
        n_rows = count_rows(X)
        if n_rows != self._n_query:
            raise ValueError(
                f"expected the {self._n_query} queries that the truth was measured on, in its order, got {n_rows}: "
                "pass all of them, or X_query to the constructor, to have queries recognised"
            )
        return np.arange(n_rows)

    def match(self, hashes: np.ndarray, exact: np.ndarray | None = None) -> np.ndarray:
        """Where the truth has queries of these fingerprints, ndarray of uint64: ndarray of int64.

        ``exact``: those of :func:`exact_row_hashes`, which count where the truth's queries have such too.

        Raises
        ------
        ValueError
            If it lacks some.
        """
        # Equal queries, which differ in their targets perhaps, each in turn.
        own = (hashes, self.hashes) if exact is None or self._exact is None else (exact, self._exact)
        places = match_rows(*own, reuse=True)
        n_unknown = int((places < 0).sum())
        if n_unknown:
            raise ValueError(
                f"expected queries of the truth, but {n_unknown} of {len(hashes)} queries are not among those that it "
                "was measured on: EmpiricalInfluence can score no others; retrain with them as queries"
            )
        return places


def _is_finite(array):
    """Whether an array holds no NaN and no infinity; also of one that holds no numbers."""
    try:
        return bool(np.isfinite(array.astype(np.float64)).all())
    except (TypeError, ValueError):
        return True
