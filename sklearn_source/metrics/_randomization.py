"""Whether scores depend on what the network learned."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import Bunch

from ..utils._argument_checks import check_confidence
from ._intervals import mean_interval
from ._ranks import column_spearman
from ._score_validation import as_array, check_scores, check_table


def model_randomization_score(scores: ArrayLike, randomized: ArrayLike, *, confidence: float = 0.95) -> Bunch:
    """How alike scores of the trained network and of one with random weights are; lower is better.

    A method that ranks rows alike by both explains the data and the architecture, not what the network learned.

    Read more in the :ref:`User Guide <other_metrics>`.

    Parameters
    ----------
    scores : array-like of shape (n_query, n_train)
        Of the trained network.
    randomized : array-like of shape (n_query, n_train) or (n_random, n_query, n_train)
        Of the same queries and rows by networks that learned nothing, ``clone(net).set_params(lr=0.0,
        max_epochs=1).fit(X, y)``, with the same targets of the queries for both: the predicted classes differ. For
        methods that look at the trained weights; those that follow a training have nothing to follow.
    confidence : float, default=0.95
        Of the interval.

    Returns
    -------
    result : Bunch
        score : float
            Mean, over queries and networks, of the Spearman correlation over training rows: 0 where nothing of the
            ranking is left, 1 where all is.
        interval : tuple of float
            Over other queries of the same kind. NaN for a single query.
        per_query : ndarray of shape (n_query,)
            0 where a query's scores do not vary.
        per_network : ndarray of shape (n_random,)
            Means over queries.

    Raises
    ------
    ValueError
        If shapes differ or something is not finite.

    References
    ----------
    .. [1] J. Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018.
    .. [2] K. Hanawa, S. Yokoi, S. Hara, K. Inui, "Evaluation of Similarity-based Explanations", ICLR 2021.

    Examples
    --------
    >>> from sklearn_source.metrics import model_randomization_score
    >>> model_randomization_score([[1.0, 2.0, 3.0]], [[10.0, 20.0, 30.0]]).score
    1.0
    """
    check_confidence(confidence)
    scores, randomized = check_table(scores), as_array(randomized)
    randomized = randomized[None] if randomized.ndim == 2 else randomized
    if randomized.ndim != 3 or not len(randomized) or randomized.shape[1:] != scores.shape:
        raise ValueError(
            f"expected randomized as scores of the same queries and training rows, {scores.shape} or one axis of "
            f"networks before that, got shape {randomized.shape}"
        )
    correlations = np.array([column_spearman(scores.T, check_scores(r, *scores.shape).T) for r in randomized])
    per_query = correlations.mean(axis=0)
    return Bunch(
        score=float(correlations.mean()),
        interval=mean_interval(per_query, confidence, -1.0, 1.0),
        per_query=per_query,
        per_network=correlations.mean(axis=1),
    )
