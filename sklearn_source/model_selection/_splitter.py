"""Folds of the queries, over all training rows."""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt
from typing import Any

import joblib
import numpy as np
from sklearn.model_selection import BaseCrossValidator

from ..rows import count_rows, row_hashes, take_rows
from ..utils._argument_checks import check_count


class FullTrainingSet(BaseCrossValidator):
    """Cross-validation that fits on all training rows every time, and folds the queries.

    An attribution explains one training, whose rows must all be there; what has to differ between choosing a setting
    and reporting its score are the queries. They are not among the rows that a splitter deals out: a scorer by
    :func:`make_lds_scorer` holds them, and scores on the fold that the split names.

    Read more in the :ref:`User Guide <model_selection>`.

    Parameters
    ----------
    n_splits : int, default=5
        Folds of the queries; 1: all of them at once. Each fold fits anew, so give ``memory=`` to a method's curvature.

    Notes
    -----
    A fold reaches the scorer through the only thing of a split that ever does, the test rows: those of fold f of n are
    the first training row, n(n - 1)/2 + f + 1 times over. Nothing but a scorer by :func:`make_lds_scorer` can make
    sense of them.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_source.model_selection import FullTrainingSet
    >>> for train, test in FullTrainingSet(2).split(np.zeros((4, 1))):
    ...     print(train, test)
    [0 1 2 3] [0 0]
    [0 1 2 3] [0 0 0]
    """

    def __init__(self, n_splits: int = 5) -> None:
        self.n_splits = check_count("n_splits", n_splits)

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All rows to fit on, and test rows that name a fold of the queries.

        Parameters
        ----------
        X : array-like of shape (n_train, ...)
        y, groups : ignored

        Yields
        ------
        train : ndarray of shape (n_train,), int
            Every row, in order.
        test : ndarray of int
        """
        n_rows = count_rows(X)
        if n_rows is None:
            raise ValueError(f"expected training rows that can be counted, got a {type(X).__name__}: pass an array")
        rows = np.arange(n_rows)
        for fold in range(self.n_splits):
            yield rows.copy(), np.zeros(self.n_splits * (self.n_splits - 1) // 2 + fold + 1, dtype=np.int64)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Number of folds.

        Parameters
        ----------
        X, y, groups : ignored

        Returns
        -------
        n_splits : int
        """
        return self.n_splits

    def __repr__(self) -> str:
        return f"FullTrainingSet(n_splits={self.n_splits})"


def named_fold(X):
    """(fold, n_splits) that test rows of :class:`FullTrainingSet` name; any others: all queries, (0, 1)."""
    n = count_rows(X)
    hashes = row_hashes(X)
    if hashes is None:  # rows of any kind, within one process: by their pickles
        first = joblib.hash(take_rows(X, [0]))
        same = all(joblib.hash(take_rows(X, [i])) == first for i in range(1, n))
    else:
        same = bool((hashes == hashes[0]).all())
    if not same:
        return 0, 1
    n_splits = (isqrt(8 * n - 7) + 1) // 2  # the largest with n_splits (n_splits - 1) / 2 < n
    return n - n_splits * (n_splits - 1) // 2 - 1, n_splits
