"""Rows that are on top for queries that have nothing in common."""

from __future__ import annotations

from numbers import Real

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binom
from sklearn.utils import Bunch

from ..utils._argument_checks import check_confidence, check_k
from ._intervals import mean_interval
from ._score_validation import check_table
from ._top import top_k_mask


def generally_influential_share(
    scores: ArrayLike, *, k: int = 10, share: float = 0.1, confidence: float = 0.95
) -> Bunch:
    """How much of the lists of highest rows is taken by rows that are in the lists of many queries.

    Of a diffusion model such rows drew a timestep at which gradients are large; elsewhere they are outliers. They say
    little about the query at hand.

    Read more in the :ref:`User Guide <diffusion_tracin>`.

    Parameters
    ----------
    scores : array-like of shape (n_query, n_train)
    k : int, default=10
        Rows in the list of each query.
    share : float, default=0.1
        Generally influential is a row in the lists of more than this share of the queries.
    confidence : float, default=0.95
        Of the interval.

    Returns
    -------
    result : Bunch
        score : float
            Mean over queries of the share of the k rows that are generally influential, from 0 to 1.
        interval : tuple of float
            Of the score, over other queries of the same kind, the generally influential rows as they are.
        chance : float
            The same for random orders.
        per_query : ndarray of shape (n_query,)
            The share of each query.
        rows : ndarray of int
            The generally influential rows, the most frequent first.
        frequency : ndarray of shape (n_train,)
            Share of the queries in whose lists each row is.

    Raises
    ------
    ValueError
        If something is not finite, k is no number of rows, or ``share`` is not between 0 and 1.

    See Also
    --------
    top_k_overlap : Its ``cardinality`` counts the different rows in all lists.

    Notes
    -----
    Of equal scores, those of the rows that come first are taken to be higher.

    References
    ----------
    .. [1] Xie, Li, Bai, Hsieh (2024), "Data Attribution for Diffusion Models: Timestep-induced Bias in Influence
       Estimation", TMLR, arXiv:2401.09031.

    Examples
    --------
    >>> from sklearn_source.metrics import generally_influential_share
    >>> result = generally_influential_share([[9, 3, 1], [8, 2, 4], [7, 6, 5]], k=2, share=0.7)
    >>> result.rows, result.score  # row 0 is in all three lists, row 1 in two of them
    (array([0]), 0.5)
    """
    check_confidence(confidence)
    if not isinstance(share, Real) or isinstance(share, bool) or not 0 <= share < 1:
        raise ValueError(f"expected share to be from 0 to below 1, got {share!r}")
    scores = check_table(scores)
    n_query, n_train = scores.shape
    k = check_k(k, n_train)
    members = top_k_mask(scores, k)
    frequency = members.mean(axis=0)
    general = frequency > share + 1e-12
    per_query = members[:, general].sum(axis=1) / k
    rows = np.flatnonzero(general)
    return Bunch(
        score=float(per_query.mean()),
        interval=mean_interval(per_query, confidence, 0.0, 1.0),
        # A row that is in one list has to be in so many of the others.
        chance=float(binom.sf(np.floor(share * n_query + 1e-9) - 1, n_query - 1, k / n_train)),
        per_query=per_query,
        rows=rows[np.argsort(-frequency[rows], kind="stable")],
        frequency=frequency,
    )
