"""Whether what scores predict for groups of rows is as large as what retraining shows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import Bunch

from ..utils._argument_checks import check_confidence
from ._agreement import agreement_of_pairs, agreement_of_tables
from ._first_order import predicted_changes
from ._removal import names_of_groups, query_of_groups
from ._score_validation import check_truth


def group_effect_score(
    scores: ArrayLike | None,
    truth: Any,
    *,
    predicted: ArrayLike | None = None,
    queries: ArrayLike | None = None,
    confidence: float = 0.95,
) -> Bunch:
    """How large the effects of groups of rows are, by the scores and by retraining: the slope tells the size.

    For each subset of the truth, the scores predict how far the measurement of a query goes from that of the network
    trained on all rows (:func:`first_order_change`, which has the weight :math:`N/|S|` of the rows kept). What
    retraining shows is regressed on it: a slope of 1 is right for removals and for random halves alike; below 1 the
    scores are too large, above 1 too small.

    Read more in the :ref:`User Guide <group_effects>`.

    Parameters
    ----------
    scores : array-like of shape (n_query, n_train) or None
        From ``transform``: in the unit of the measurement, positive where having the row raises it.
    truth : Retraining
        From :func:`~sklearn_source.retraining.retrain_without`, for groups removed; or from
        :func:`~sklearn_source.retraining.retrain_on_subsets`, for random subsets.
    predicted : array-like of shape (n_subsets, n_query), optional
        In place of scores: how far a measurement goes from that of the network trained on all rows, for every subset of
        the truth (those of all rows may be left away); negative where it falls.
    queries : array-like of int, shape (n_groups,), optional
        The query that each group belongs to, in the order of the truth (its subset of all rows left away); -1 for a
        group that counts for every query. None: groups named ``"query q top k"`` belong to query q, as
        :func:`top_k_removals` names them, all others count for every query.
    confidence : float, default=0.95
        Of the intervals.

    Returns
    -------
    result : Bunch
        slope : float
            Of what was retrained on what was predicted, without unit. NaN where predictions do not vary.
        slope_interval : tuple of float
            For the slope of other groups and other queries of the same kind, with the scores as given.
        intercept : float
            What the slope leaves over, mean over queries, in the unit of the measurement. With a subset of all rows in
            the truth: of the change, so that 0 is right. Without: the measurement of a network trained on all rows, as
            the subsets tell it.
        correlation, correlation_interval : float, tuple of float
            Pearson's.
        rank_correlation, rank_correlation_interval : float, tuple of float
            Spearman's. For subsets of one size: the linear datamodeling score.
        per_query_slope, per_query_correlation, per_query_rank_correlation : ndarray of shape (n_query,)
            Of each query alone. NaN for a query that has no groups, or fewer than 3 for correlations.
        by_size : Bunch of ndarray of shape (n_sizes, ...)
            ``n_removed`` (rows that the groups of this size lack), ``n_groups``, ``predicted`` and ``retrained`` (mean
            changes; the latter NaN without a subset of all rows), ``slope``, ``slope_interval`` (n_sizes, 2),
            ``correlation`` and ``rank_correlation``. NaN where there are too few of a size.
        predicted, retrained : ndarray of shape (n_pairs,)
            What was compared, a pair for each group and query. Groups that count for every query are about the mean of
            each query.
        query, n_removed : ndarray of int, shape (n_pairs,)
            Whose change it is, and how many rows were away.
        own_groups : bool
            Whether the groups belong to a query each.
        random : Bunch or None
            Where some groups belong to a query and others to none: the same for the latter.
        measurement : str or None
            What the truth measured.

    Raises
    ------
    ValueError
        If shapes differ, something is not finite, there are fewer than 3 subsets, groups belong to queries and no
        subset holds all rows to compare with, or both scores and predictions are given.

    Notes
    -----
    *Groups that count for every query* (random halves, random removals, classes) are compared with each other: slope
    and correlations are about the mean of each query, for which no network on all rows is needed. The slope is that of
    all queries together, weighted by how far their predictions vary; correlations are means over queries.

    *Groups that belong to a query*, its strongest supporters, count for this query alone and are compared with the
    network on all rows: the slope goes through the origin, and correlations are over the groups of all queries.

    *Noise.* That of retraining, with few repeats, makes intervals wide and correlations low; it does not pull the
    slope, as it is in what is regressed and not in what it is regressed on. Noise of the *scores* does pull it below 1,
    more so for groups that were chosen by the same scores: the highest are those whose error is upwards.

    *Intervals* are jackknives with Student's quantiles: over queries, and over groups where queries share these, the
    chance of both counted once; degrees of freedom are those of the fewer. In simulations, intervals of 95 % held the
    expected slope in 91 to 98 % of the cases; where a few queries hold most of the effects, in 80 %. The chance of the
    networks on all rows, with which all groups that belong to queries are compared, is not in them: it takes repeats.

    First order ends where groups are large or measurements saturate: the log-odds of a query that is sure move further
    than any sum says. Ask for the ``"prediction"`` then, or predict otherwise and pass `predicted`.

    References
    ----------
    .. [1] P. W. Koh, K.-S. Ang, H. Teo, P. Liang, "On the Accuracy of Influence Functions for Measuring Group Effects",
       NeurIPS 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.utils import Bunch
    >>> from sklearn_source.metrics import first_order_change, group_effect_score
    >>> rng = np.random.default_rng(0)
    >>> effects, masks = rng.normal(size=(5, 20)), rng.random((50, 20)) < 0.5
    >>> truth = Bunch(masks=masks, outputs=first_order_change(effects, masks)[:, None])
    >>> round(group_effect_score(4 * effects, truth).slope, 6)  # scores that are four times too large
    0.25
    """
    check_confidence(confidence)
    masks, outputs = check_truth(truth)
    n_query = outputs.shape[2]
    changes = predicted_changes(scores, predicted, truth, masks, n_query)
    whole = masks.all(axis=1)
    n_groups = int((~whole).sum())
    query_of = query_of_groups(queries, names_of_groups(truth, whole), n_groups, n_query)
    query_of = np.full(n_groups, -1) if query_of is None else query_of
    reference = outputs[whole].reshape(-1, n_query).mean(axis=0) if whole.any() else None
    if reference is None and (query_of >= 0).any():
        raise ValueError(
            "expected a truth with a subset of all rows, which groups of single queries are compared with, got none: "
            "make it with retrain_without"
        )
    if n_groups < 3:
        raise ValueError(f"expected at least 3 subsets that lack rows, got {n_groups}")
    retrained = outputs[~whole].mean(axis=1) - (0.0 if reference is None else reference)
    predicted, n_removed = changes[~whole], (~masks[~whole]).sum(axis=1)
    parts = [
        _effects_by_size(predicted[part], retrained[part], n_removed[part], query_of[part], confidence)
        for part in (query_of >= 0, query_of < 0)
        if part.any()
    ]
    result = Bunch(**parts[0], random=parts[1] if len(parts) > 1 else None)
    result.measurement = getattr(truth, "measurement", None)
    if reference is None:
        result.by_size.retrained[:] = np.nan
    return result


def _effects_by_size(predicted, retrained, n_removed, query_of, confidence):
    """The result for groups that all belong to a query, or all to none: of all sizes, and of each.

    Parameters
    ----------
    predicted, retrained : ndarray of shape (n_groups, n_query)
    n_removed, query_of : ndarray of int, shape (n_groups,)
    confidence : float
    """
    result = _effects(predicted, retrained, query_of, confidence)
    groups, result.query = result.pop("places")
    result.n_removed, result.own_groups = n_removed[groups], bool(query_of[0] >= 0)
    sizes = np.unique(n_removed)
    of_sizes = [n_removed == size for size in sizes]
    found = [_effects(predicted[own], retrained[own], query_of[own], confidence) for own in of_sizes]
    result.by_size = Bunch(n_removed=sizes, n_groups=np.array([own.sum() for own in of_sizes]))
    for name in ("mean_predicted", "mean_retrained", "slope", "slope_interval", "correlation", "rank_correlation"):
        result.by_size[name.removeprefix("mean_")] = np.array([one[name] for one in found])
    del result["mean_predicted"], result["mean_retrained"]
    return result


def _effects(predicted, retrained, query_of, confidence):
    """The numbers for some groups, and what was compared, with the ``places`` (group, query) that it comes from."""
    n_groups, n_query = predicted.shape
    if query_of[0] < 0:
        result = agreement_of_tables(predicted, retrained, confidence)
        places = tuple(np.indices(predicted.shape).reshape(2, -1))
        means = predicted.mean(axis=0), retrained.mean(axis=0)
        result.predicted, result.retrained = (table - mean for table, mean in zip((predicted, retrained), means))
    else:
        places = np.arange(n_groups), query_of
        result = agreement_of_pairs(predicted[places], retrained[places], query_of, n_query, confidence)
        result.predicted, result.retrained = predicted, retrained
    result.predicted, result.retrained = result.predicted[places], result.retrained[places]
    result.mean_predicted, result.mean_retrained = (float(table[places].mean()) for table in (predicted, retrained))
    result.intercept = result.mean_retrained - result.slope * result.mean_predicted
    result.places = places
    return result
