"""What groups of training rows did to predictions, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import Bunch

from ..metrics import first_order_change, student_interval
from ..rows import group_masks
from ..utils._argument_checks import check_choice, check_confidence, check_switch
from ._score_chunks import check_attribution, score_chunks

_UNCERTAINTIES = ("auto", "rows", "networks", "both")


def group_influence(
    estimator: BaseEstimator | Sequence[BaseEstimator],
    X_query: Any,
    groups: Any,
    y_query: Any = None,
    *,
    uncertainty: str = "auto",
    confidence: float = 0.95,
    refit: bool = False,
) -> Bunch:
    """Sum the scores of each group of training rows for each query, with an uncertainty.

    The sum is the derivative of a query's measurement by the weight of the group in the loss, when the other rows keep
    theirs; ``removal`` says what removing the group should do, where the others gain what it loses.

    Read more in the :ref:`User Guide <decisions>`.

    Parameters
    ----------
    estimator : fitted attribution method, or list of them
        Several of one method on the same rows, whose networks differ in their seeds: their mean is returned, and their
        spread tells the chance of training.
    X_query : array-like of shape (n_query, ...)
        The queries, as ``transform`` takes them.
    groups : dict of str to array-like, array-like of shape (n_train,), or list of array-like
        Names and rows, as indices or masks; or a label for each row (its class, its source, ...): each label is a
        group; or rows of one group after the other. Groups may overlap and leave rows out.
    y_query : array-like of shape (n_query, ...), optional
        Targets of the queries, for measurements that need them.
    uncertainty : {"auto", "rows", "networks", "both"}, default="auto"
        What the interval allows for. "rows": that the group might have held other rows of the same kind, as many;
        "networks": that training had taken another course, told by several estimators; "both". "auto": both for
        several estimators, else rows. For the effect of precisely these rows, of which no others are thinkable, take
        "networks".
    confidence : float, default=0.95
        Of the interval.
    refit : bool, default=False
        Whether ``removal`` is found by ``predict_reweighting`` of the estimators, with what the rows of a group do
        together, in place of a sum of scores.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        influence : ndarray of shape (n_query, n_groups)
            In the unit of the scores; positive: having the group raised the query's measurement. All weights 1/N kept,
            as by ``retrain_without(renormalize=False)``.
        removal : ndarray of shape (n_query, n_groups)
            How far the measurement should go when the network is trained without the group, by
            :func:`~sklearn_source.metrics.first_order_change`: minus the influence, and what the others add, whose
            weights become :math:`1/(N - |G|)`. Negative: it falls. NaN for a group of all rows.
        interval : tuple of ndarray of shape (n_query, n_groups)
            Of the influence, by Student's quantiles. NaN where nothing tells the spread: for a single row.
        std_error : ndarray of shape (n_query, n_groups)
            Of what the interval allows for.
        std_error_rows : ndarray of shape (n_query, n_groups)
            ``sqrt(size)`` times the standard deviation of the scores in the group, which is what the jackknife over
            its rows gives for a sum.
        std_error_networks : ndarray of shape (n_query, n_groups)
            Standard deviation of the group's sums over estimators, by the square root of their number. NaN for one
            estimator.
        names : list
            Of the groups: keys, labels, or places in the list.
        sizes : ndarray of shape (n_groups,)
            Rows in each group.

    Raises
    ------
    ValueError
        If groups name no rows or others than those there are, estimators differ in their training rows, networks are
        to vary and there is one, or ``refit`` is asked of estimators that have no ``predict_reweighting``.
    TypeError
        If an estimator is no attribution method.

    See Also
    --------
    sklearn_source.retraining.retrain_without : Removes a group and trains again, to see what it did.
    sklearn_source.metrics.group_effect_score : Compares what was predicted with that.
    under_sampled_regions : Which predictions rest on few rows.

    Notes
    -----
    Scores are derivatives: they foretell the removal of a group while it is a small part of the rows
    (:func:`~sklearn_source.retraining.retrain_without` tells). No interval here allows for that. Costs one
    ``transform`` for each estimator; scores are summed a part of the queries at a time.

    References
    ----------
    .. [1] P. W. Koh, K.-S. Ang, H. Teo, P. Liang, "On the Accuracy of Influence Functions for Measuring Group Effects",
       NeurIPS 2019.
    .. [2] E. Nguyen, J. Bertram, E. Kortukov, J. Y. Song, S. J. Oh, "Towards User-Focused Research in Training Data
       Attribution for Human-Centered Explainable AI", 2024, arXiv:2409.16978.

    Examples
    --------
    >>> effects = group_influence(est, X_query, y_train)  # by class  # doctest: +SKIP
    >>> effects.names[effects.influence[0].argmin()]  # the class that opposed the first query most  # doctest: +SKIP
    """
    check_confidence(confidence)
    estimators = [check_attribution(e) for e in (estimator if isinstance(estimator, (list, tuple)) else [estimator])]
    check_choice("uncertainty", uncertainty, _UNCERTAINTIES)
    check_switch("refit", refit)
    if not estimators:
        raise ValueError("expected at least one estimator, got an empty list")
    hashes = [h for e in estimators if (h := getattr(e, "row_hashes_", None)) is not None]
    if len({e.n_train_ for e in estimators}) > 1 or any(not np.array_equal(h, hashes[0]) for h in hashes):
        raise ValueError(
            "expected estimators of the same training rows, in the same order, got some of "
            f"{', '.join(str(e.n_train_) for e in estimators)} rows that differ"
        )
    _require_one_method(estimators)
    several = len(estimators) > 1
    if uncertainty in ("networks", "both") and not several:
        raise ValueError(
            f"expected several estimators for uncertainty={uncertainty!r}, got one: fit the method to networks "
            "trained with other seeds, or pass uncertainty='rows'"
        )
    names, masks = group_masks(groups, estimators[0].n_train_)
    sizes = masks.sum(axis=1)
    chunk_sums, chunk_errors, chunk_removals = [], [], []
    for chunk in zip(*(score_chunks(e, X_query, y_query) for e in estimators)):
        scores = np.stack([s for _, s in chunk])  # (n_estimators, n, n_train)
        chunk_sums.append(scores @ masks.T.astype(np.float64))
        mean = scores.mean(axis=0)
        chunk_errors.append(np.stack([_jackknife_error(mean[:, mask]) for mask in masks], axis=1))
        chunk_removals.append(_removal(mean, masks))
    sums = np.concatenate(chunk_sums, axis=1)  # (n_estimators, n_query, n_groups)
    error_rows = np.concatenate(chunk_errors)
    error_networks = sums.std(axis=0, ddof=1) / np.sqrt(len(sums)) if several else np.full(error_rows.shape, np.nan)
    use_rows = uncertainty in ("rows", "both", "auto")
    use_networks = several and uncertainty != "rows"
    std_error, degrees_of_freedom = combined_error(
        [(error_rows, np.broadcast_to(sizes - 1, error_rows.shape))] * use_rows
        + [(error_networks, np.full(error_rows.shape, len(sums) - 1))] * use_networks
    )
    influence = sums.mean(axis=0)
    return Bunch(
        influence=influence,
        removal=_refitted(estimators, X_query, y_query, masks) if refit else np.concatenate(chunk_removals),
        interval=student_interval(influence, std_error, np.maximum(degrees_of_freedom, 1), confidence),
        std_error=std_error,
        std_error_rows=error_rows,
        std_error_networks=error_networks,
        names=names,
        sizes=sizes,
    )


def _require_one_method(estimators):
    """Refuse estimators whose scores are of different methods or measurements, whose mean would be of neither."""
    asked = set()
    for e in estimators:
        measurement, output = (getattr(e, name, None) for name in ("measurement", "output"))
        measurement = getattr(measurement, "__name__", measurement)
        asked.add(f"{type(e).__name__}(measurement={measurement!r}, output={output!r})")
    if len(asked) > 1:
        first, second = sorted(asked)[:2]
        raise ValueError(
            f"expected estimators of one method and measurement, got {first} and {second}: ask each of them alone"
        )


def _refitted(estimators, X_query, y_query, masks):
    """Mean over estimators of what they predict of the removal of groups, NaN where no rows remain."""
    lacking = [type(e).__name__ for e in estimators if not hasattr(e, "predict_reweighting")]
    if lacking:
        raise ValueError(
            f"refit=True needs estimators with predict_reweighting, the gradient methods, got {lacking[0]}: pass "
            "refit=False"
        )
    asked = ~masks.all(axis=1)
    found = [e.predict_reweighting(X_query, y_query, groups=list(masks[asked])) for e in estimators]
    removal = np.full((len(found[0]), len(masks)), np.nan)
    removal[:, asked] = np.mean(found, axis=0)
    return removal


def _removal(scores, masks):
    """Changes by the removal of groups, masks (n_groups, n_train): (n_query, n_groups), NaN where no rows remain."""
    changes, some_remain = np.full((len(masks), len(scores)), np.nan), ~masks.all(axis=1)
    changes[some_remain] = first_order_change(scores, ~masks[some_remain])
    return changes.T


def _jackknife_error(scores):
    """Standard error of the sums over rows, by the jackknife: scores (n, size) -> (n,)."""
    size = scores.shape[1]
    return np.sqrt(size) * scores.std(axis=1, ddof=1) if size > 1 else np.full(len(scores), np.nan)


def combined_error(sources):
    """Independent standard errors as one, and its degrees of freedom by Welch and Satterthwaite.

    Takes pairs of (standard errors, degrees of freedom) of one shape, returns one such pair.
    """
    variance = sum(error**2 for error, _ in sources)
    weight = sum(error**4 / np.maximum(freedom, 1) for error, freedom in sources)
    freedom = np.divide(variance**2, weight, out=np.ones_like(variance), where=weight > 0)
    return np.sqrt(variance), freedom
