"""Scores by the segment of training in which they arose."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from ..base import scores_by_term
from ._showable import count


def segment_scores(estimator, X, y=None):
    """The scores of :class:`~sklearn_source.SourceAttribution`, by the segment of training in which they arose.

    Read more in the :ref:`User Guide <segments>`.

    Parameters
    ----------
    estimator : SourceAttribution
        Fitted.
    X, y : array-like
        The queries, as in ``transform``.

    Returns
    -------
    scores : ndarray of shape (n_segments, n_query, n_train), float32
        In the unit of the measurement, in the order of ``segments_``. Their sum over segments is ``transform(X, y)``.

    Raises
    ------
    ValueError
        If the estimator has no segments.

    Notes
    -----
    The term of segment l in :class:`~sklearn_source.SourceAttribution`'s sum. Costs as much as ``transform``, and the
    training gradients at a checkpoint between two segments once more.
    """
    scores = None
    for segment, queries, rows, part in parts(estimator, X, y):
        if scores is None:
            scores = np.zeros((len(estimator.segments_), count(X), estimator.n_train_), dtype=np.float32)
        scores[segment, queries, rows] = part.to(torch.float32).cpu().numpy()
    return scores


def parts(estimator, X, y=None):
    """Yield (segment, slice of queries, slice of training rows, scores tensor) without holding them all."""
    check_is_fitted(estimator)
    if not hasattr(estimator, "segments_"):
        raise ValueError(
            f"expected an estimator that solves training in segments, a SourceAttribution, got a "
            f"{type(estimator).__name__}, which has none"
        )
    last = len(estimator.segments_) - 1  # a query walks back from the end of training
    for term, queries, rows, scores in scores_by_term(estimator, X, y):
        yield last - term, queries, rows, scores
