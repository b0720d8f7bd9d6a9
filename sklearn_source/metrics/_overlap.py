"""Which strongest rows are shared: between queries, or between two methods."""

from __future__ import annotations

from numpy.typing import ArrayLike
from sklearn.utils import Bunch

from ..utils._argument_checks import check_confidence, check_k
from ._intervals import mean_interval
from ._score_validation import check_scores, check_table
from ._top import top_k_mask


def top_k_overlap(scores: ArrayLike, other: ArrayLike | None = None, *, k: int = 10, confidence: float = 0.95) -> Bunch:
    """Share of common rows among the k highest: of two methods for each query, or of one method between queries.

    Read more in the :ref:`User Guide <other_metrics>`.

    Parameters
    ----------
    scores : array-like of shape (n_query, n_train)
    other : array-like of shape (n_query, n_train), optional
        Scores of the same queries and rows by another method, network or seed. None: compare the queries with each
        other.
    k : int, default=10
    confidence : float, default=0.95
        Of the interval.

    Returns
    -------
    result : Bunch
        score : float
            With `other`: mean over queries of the share of the k rows that both name; 1 where they agree. Without:
            mean over pairs of queries of the share of the k rows that both have; 1 where all queries name the same
            rows, however different they are. A method that does so names outliers, not the rows behind a prediction.
        interval : tuple of float
            Of the score, over other queries of the same kind. NaN for a single query, and for two compared with each
            other.
        chance : float
            The same for random orders, k / n_train.
        per_query : ndarray of shape (n_query,)
            The share of each query, without `other` the mean over its pairs.
        cardinality : float
            Different rows named by `scores` for any query, as a share of n_query * k: 1 where no two queries share one.

    Raises
    ------
    ValueError
        If shapes differ, something is not finite, k is no number of rows, or a single query is to be compared with
        itself.

    Notes
    -----
    Of equal scores, those of the rows that come first are taken to be higher.

    References
    ----------
    .. [1] E. Barshan, M.-E. Brunet, G. K. Dziugaite, "RelatIF: Identifying Explanatory Training Examples via Relative
       Influence", AISTATS 2020.

    Examples
    --------
    >>> from sklearn_source.metrics import top_k_overlap
    >>> overlap = top_k_overlap([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]], k=2)
    >>> overlap.score, overlap.cardinality
    (0.5, 0.75)
    """
    check_confidence(confidence)
    scores = check_table(scores)
    n_query, n_train = scores.shape
    k = check_k(k, n_train)
    mine = top_k_mask(scores, k)
    if other is not None:
        other = check_scores(other, n_query, n_train, "both are to be of the same queries and training rows")
        per_query = (mine * top_k_mask(other, k)).sum(axis=1) / k
        limits = mean_interval(per_query, confidence, 0.0, 1.0)
    else:
        if n_query < 2:
            raise ValueError("expected two queries or more to compare with each other, got one: pass more, or other=")
        common = mine.sum(axis=0)  # queries that name each row
        per_query = (mine @ (common - 1.0)) / (k * (n_query - 1))
        limits = _pairs_interval(per_query, confidence)
    return Bunch(
        score=float(per_query.mean()),
        interval=limits,
        chance=k / n_train,
        per_query=per_query,
        cardinality=float(mine.any(axis=0).sum() / (n_query * k)),
    )


def _pairs_interval(per_query, confidence):
    """Of a mean over pairs: leaving out a query changes it by twice what the query's own mean is off (jackknife)."""
    n = len(per_query)
    if n < 3:
        return float("nan"), float("nan")
    mean = per_query.mean()
    stretched = mean + 2 * (n - 1) / (n - 2) * (per_query - mean)
    return mean_interval(stretched, confidence, 0.0, 1.0)
