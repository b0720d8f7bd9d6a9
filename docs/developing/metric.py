"""Whether scores have the sign of the effect: a metric of few lines."""

from __future__ import annotations

import numpy as np
from sklearn.utils import Bunch

from sklearn_source.metrics import check_scores, check_truth, mean_interval


def sign_agreement_score(scores, truth, *, confidence=0.95):
    """Share of removals whose effect has the sign that the scores foretold.

    Parameters
    ----------
    scores : array-like of shape (n_query, n_train)
        Scores with a sign.
    truth : Retraining
        From :func:`~sklearn_source.retraining.leave_one_out`: the first subset holds all rows, each other
        one lacks some.
    confidence : float, default=0.95
        Of the interval.

    Returns
    -------
    result : Bunch
        score : float
            Mean over queries, from 0 to 1; 0.5 for noise.
        interval : tuple of float
            Of the mean over other queries of the same kind, the networks as they are; NaN for a single query.
        per_query : ndarray of shape (n_query,)
            The share of each query.

    Raises
    ------
    ValueError
        If no subset holds all rows, or shapes differ.

    Examples
    --------
    >>> truth = Bunch(masks=np.array([[1, 1], [0, 1], [1, 0]], dtype=bool),
    ...               outputs=np.array([3.0, 1.0, 4.0]).reshape(3, 1, 1))
    >>> sign_agreement_score([[0.7, 0.2]], truth).score  # without row 0 the output fell, without row 1 it rose
    0.5
    """
    masks, outputs = check_truth(truth)
    if not masks[0].all():
        raise ValueError("expected a truth whose first subset holds all rows, got others: make it with leave_one_out")
    scores = check_scores(scores, outputs.shape[2], masks.shape[1])
    means = outputs.mean(axis=1)  # (n_subsets, n_query)
    effect = means[:1] - means[1:]  # what the removed rows had added
    foretold = (~masks[1:]).astype(np.float64) @ scores.T
    per_query = (np.sign(effect) == np.sign(foretold)).mean(axis=0)
    return Bunch(
        score=float(per_query.mean()),
        interval=mean_interval(per_query, confidence, 0.0, 1.0),
        per_query=per_query,
    )
