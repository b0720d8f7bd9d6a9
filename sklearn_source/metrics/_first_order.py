"""What scores say of training on a part of the rows, to first order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..utils._argument_checks import check_switch
from ._score_validation import as_array, check_scores, check_table


def first_order_change(scores: ArrayLike, masks: ArrayLike, *, renormalize: bool = True) -> np.ndarray:
    """How a query's measurement changes, by its scores, when the network is trained on some of the rows alone.

    A loss that is the mean over the rows gives each of the :math:`|S|` rows kept the weight :math:`1/|S|`, where it was
    :math:`1/N`: the rows kept gain as the others leave. To first order in the weights

    .. math:: f(S) - f(\\text{all}) = \\frac{N}{|S|} \\sum_{m \\in S} \\tau_m - \\sum_m \\tau_m

    which for the removal of a group G is
    :math:`-\\sum_{m \\in G} \\tau_m + \\frac{|G|}{N - |G|} \\sum_{m \\notin G} \\tau_m`.

    Read more in the :ref:`User Guide <group_effects>`.

    Parameters
    ----------
    scores : array-like of shape (n_query, n_train)
        From ``transform``: in the unit of the measurement, positive where having the row raises it.
    masks : array-like of bool of shape (n_subsets, n_train)
        The rows that are trained on, as ``masks`` of a :class:`~sklearn_source.retraining.Retraining`.
    renormalize : bool, default=True
        False: the rows kept have the weight 1/N that they had, as in ``retrain_without(renormalize=False)``.

    Returns
    -------
    change : ndarray of shape (n_subsets, n_query)
        In the unit of the scores; negative where the measurement falls.

    Raises
    ------
    ValueError
        If shapes differ, something is not finite, or a subset holds no rows.

    Notes
    -----
    Networks are taken to train to the same point on fewer rows. With a fixed number of epochs they take fewer steps,
    which no score knows. What rows of a group do together, beyond the sum of what each does, is of second order.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_source.metrics import first_order_change
    >>> values = np.array([4.0, 2.0, 0.0])  # of which a network knows the mean
    >>> scores = (values - values.mean())[None] / 3
    >>> first_order_change(scores, np.array([[False, True, True]]))  # the mean falls from 2 to 1
    array([[-1.]])
    """
    scores, masks = check_table(scores), as_array(masks)
    n_train = scores.shape[1]
    if masks.dtype != bool or masks.ndim != 2 or masks.shape[1] != n_train:
        raise ValueError(
            f"expected masks as booleans (n_subsets, n_train) = (n_subsets, {n_train}), got {masks.dtype} of shape "
            f"{masks.shape}"
        )
    if not masks.any(axis=1).all():
        raise ValueError("expected rows in every subset, got one without: nothing is trained on no rows")
    gains = n_train / masks.sum(axis=1) if check_switch("renormalize", renormalize) else np.ones(len(masks))
    changes = gains[:, None] * (masks @ scores.T) - scores.sum(axis=1)
    return without_rounding(changes, (gains.max(initial=1.0) + 1) * np.abs(scores).sum(axis=1), n_train)


def subset_sums(scores: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Sums of scores (n_query, n_train) over the rows of each subset: (n_subsets, n_query)."""
    return without_rounding(masks @ scores.T, np.abs(scores).sum(axis=1), masks.shape[1])


def without_rounding(values: np.ndarray, size: Any, n_summed: int) -> np.ndarray:
    """Columns that nothing but rounding tells apart, made constants: ranks and slopes of rounding would be noise.

    Parameters
    ----------
    values : ndarray of shape (n, n_columns)
    size : array-like of shape (n_columns,)
        Sum of the absolute values of what was added up.
    n_summed : int
        How many numbers that were.
    """
    if not len(values):
        return values
    level = 8 * np.finfo(np.float64).eps * n_summed * np.asarray(size)
    alike = np.ptp(values, axis=0) <= level
    if alike.any():
        values[:, alike] = np.where(np.abs(values[0]) <= level, 0.0, values[0])[alike]
    return values


def predicted_changes(scores: Any, predicted: Any, truth: Any, masks: np.ndarray, n_query: int) -> np.ndarray:
    """What is predicted of every subset of a truth, from scores or as somebody else predicted it.

    Parameters
    ----------
    scores : array-like of shape (n_query, n_train) or None
    predicted : array-like of shape (n_subsets, n_query) or None
        Changes; lines of subsets that hold all rows may be missing.
    truth : Retraining
    masks : ndarray of shape (n_subsets, n_train)
    n_query : int

    Returns
    -------
    changes : ndarray of shape (n_subsets, n_query)
    """
    if (scores is None) == (predicted is None):
        given = "both" if predicted is not None else "neither"
        raise ValueError(f"expected either scores or predicted changes, got {given}: pass None as scores for changes")
    if predicted is None:
        settings = getattr(truth, "settings", None) or {}
        scores = check_scores(scores, n_query, masks.shape[1])
        return first_order_change(scores, masks, renormalize=settings.get("renormalize", True))
    changes, whole = as_array(predicted), masks.all(axis=1)
    shapes = [(len(masks), n_query), (int((~whole).sum()), n_query)]
    if changes.dtype.kind not in "buif" or changes.shape not in shapes:
        raise ValueError(
            f"expected predicted changes of shape (n_subsets, n_query) = {shapes[0]}, got {changes.dtype} of shape "
            f"{changes.shape}: a line for each subset of the truth"
        )
    if not np.isfinite(changes).all():
        raise ValueError("expected finite predicted changes, got NaN or infinity")
    full = np.zeros(shapes[0])
    places = slice(None) if changes.shape == shapes[0] else ~whole
    changes = changes.astype(np.float64)
    full[places] = without_rounding(changes, np.abs(changes).max(axis=0, initial=0.0), len(changes))
    return full
