"""Scores by the segment of training in which they arose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from ..base import scores_by_term
from ..rows import count_rows

if TYPE_CHECKING:
    from ..attribution import SourceAttribution


def segment_scores(estimator: SourceAttribution, X: Any, y: Any = None) -> np.ndarray:
    """Take SOURCE's scores apart by the segment of training in which they arose.

    Read more in the :ref:`User Guide <segments>`.

    Parameters
    ----------
    estimator : SourceAttribution
        Fitted.
    X : array-like of shape (n_query, ...)
        The queries, as ``transform`` takes them.
    y : array-like of shape (n_query, ...), optional
        Their targets, for measurements that need them.

    Returns
    -------
    scores : ndarray of shape (n_segments, n_query, n_train), float32
        In the unit of the measurement, in the order of ``segments_``. Their sum over segments is ``transform(X, y)``.

    Raises
    ------
    ValueError
        If the estimator has no segments.
    sklearn.exceptions.NotFittedError
        If it is not fitted.

    See Also
    --------
    SegmentDisplay : Draws their sums.

    Notes
    -----
    The term of segment l in :class:`~sklearn_source.SourceAttribution`'s sum. Costs as much as ``transform``, and the
    training gradients at a checkpoint between two segments once more.

    Examples
    --------
    >>> by_segment = segment_scores(est, X_query)  # doctest: +SKIP
    >>> by_segment.sum(axis=(1, 2))  # how much each segment contributed  # doctest: +SKIP
    """
    _check_segments(estimator)
    scores = np.zeros((len(estimator.segments_), count_rows(X), estimator.n_train_), dtype=np.float32)
    for segment, queries, rows, block in iter_segment_scores(estimator, X, y):
        scores[segment, queries, rows] = block.to(torch.float32).cpu().numpy()
    return scores


def iter_segment_scores(estimator, X, y=None):
    """Yield (segment, slice of queries, slice of training rows, their scores as a tensor), never all at once.

    Takes what :func:`segment_scores` takes, and raises what it raises.
    """
    _check_segments(estimator)
    last = len(estimator.segments_) - 1  # a query walks back from the end of training
    for term, queries, rows, scores in scores_by_term(estimator, X, y):
        yield last - term, queries, rows, scores


def _check_segments(estimator):
    """Raise a NotFittedError or a ValueError where there are no segments."""
    check_is_fitted(estimator)
    if not hasattr(estimator, "segments_"):
        raise ValueError(
            f"expected an estimator that solves training in segments, a SourceAttribution, got a "
            f"{type(estimator).__name__}, which has none"
        )
