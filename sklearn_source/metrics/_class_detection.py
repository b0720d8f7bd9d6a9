"""Whether a query's strongest rows are of its class."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import Bunch

from ..utils._argument_checks import check_confidence, check_k
from ._intervals import mean_interval
from ._score_validation import as_array, check_scores
from ._top import top_k_membership


def class_detection_score(
    scores: ArrayLike, y_query: ArrayLike, y_train: ArrayLike, *, k: int = 1, confidence: float = 0.95
) -> Bunch:
    """Share of same-class rows among the k training rows with the highest scores of a query.

    Read more in the :ref:`User Guide <other_metrics>`.

    Parameters
    ----------
    scores : array-like of shape (n_query, n_train)
    y_query : array-like of shape (n_query,)
        The class of every query: the one that was attributed, so the predicted class where that was measured.
    y_train : array-like of shape (n_train,)
        The class of every training row. With finer classes than the network was trained on, this is the subclass test
        [1]_: whether scores see what the network was not trained on.
    k : int, default=1
    confidence : float, default=0.95
        Of the interval.

    Returns
    -------
    result : Bunch
        score : float
            Mean over queries, from 0 to 1.
        interval : tuple of float
            Over other queries of the same kind. NaN for a single query.
        chance : float
            What a random order gives: the mean share of the queries' classes in the training rows.
        per_query : ndarray of shape (n_query,)
            Rows that tie for the last places count in part.

    Raises
    ------
    ValueError
        If shapes differ, scores are not finite, k is no number of rows, or no query is of a class of the training rows.

    Notes
    -----
    A sanity check, no ground truth: a row of another class may well have been what raised the measurement.

    References
    ----------
    .. [1] K. Hanawa, S. Yokoi, S. Hara, K. Inui, "Evaluation of Similarity-based Explanations", ICLR 2021.

    Examples
    --------
    >>> from sklearn_source.metrics import class_detection_score
    >>> class_detection_score([[0.9, 0.1, 0.0], [0.2, 0.1, 0.5]], [0, 1], [0, 1, 0]).score
    0.5
    """
    check_confidence(confidence)
    y_query, y_train = _labels(y_query, "y_query"), _labels(y_train, "y_train")
    scores = check_scores(scores, len(y_query), len(y_train), "give a label for every query and training row")
    if _are_texts(y_query) != _are_texts(y_train) or not np.isin(y_query, y_train).any():
        raise ValueError(
            f"expected queries of the classes of the training rows, got y_query of {y_query.dtype} such as "
            f"{y_query[0]!r}, y_train of {y_train.dtype} such as {y_train[0]!r}: encode both alike"
        )
    same = y_query[:, None] == y_train[None]
    per_query = (top_k_membership(scores, check_k(k, len(y_train))) * same).sum(axis=1) / k
    return Bunch(
        score=float(per_query.mean()),
        interval=mean_interval(per_query, confidence, 0.0, 1.0),
        chance=float(same.mean()),
        per_query=per_query,
    )


def _are_texts(labels: np.ndarray) -> bool:
    """Whether any label is a text: NumPy takes 1 and "1" for the same where it looks for one among the other."""
    return labels.dtype.kind in "US" or any(isinstance(label, (str, bytes)) for label in labels.tolist())


def _labels(y: ArrayLike, name: str) -> np.ndarray:
    """Labels as shape (n,), of (n,) or (n, 1)."""
    y = as_array(y)
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.ndim != 1 or not len(y):
        raise ValueError(f"expected {name} as one label per row, got shape {y.shape}")
    if y.dtype.kind == "c" or y.dtype.kind == "f" and not np.isfinite(y).all():
        raise ValueError(f"expected {name} as labels, got {y.dtype} with complex numbers, NaN or infinity among them")
    return y
