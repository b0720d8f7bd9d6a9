"""What groups of training rows did to predictions, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.special import stdtrit
from sklearn.utils import Bunch

from ..metrics import check_confidence
from ..retraining import row_indices
from ._score_chunks import check_attribution, score_chunks

_SOURCES = ("auto", "rows", "networks", "both")


def group_influence(estimator, X_query, groups, y_query=None, *, uncertainty="auto", confidence=0.95):
    """What each group of training rows did to each query: the sum of its rows' scores, with an uncertainty.

    Read more in the :ref:`User Guide <decisions>`.

    Parameters
    ----------
    estimator : fitted attribution method, or list of them
        Several of one method on the same rows, whose networks differ in their seeds: their mean is returned, and their
        spread tells the chance of training.
    X_query, y_query
        As for ``transform``.
    groups : dict of str to array-like, array-like of shape (n_train,), or list of array-like
        Names and rows, as indices or masks; or a label for each row (its class, its source, ...): each label is a
        group; or rows of one group after the other. Groups may overlap and leave rows out.
    uncertainty : {"auto", "rows", "networks", "both"}, default="auto"
        What the interval allows for. "rows": that the group might have held other rows of the same kind, as many;
        "networks": that training had taken another course, told by several estimators; "both". "auto": both for
        several estimators, else rows. For the effect of precisely these rows, of which no others are thinkable, take
        "networks".
    confidence : float, default=0.95
        Of the interval.

    Returns
    -------
    result : Bunch
        influence : ndarray of shape (n_query, n_groups)
            In the unit of the scores; positive: having the group raised the query's measurement.
        interval : tuple of ndarray of shape (n_query, n_groups)
            By Student's quantiles. NaN where nothing tells the spread: for the rows of a group of one.
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
        If groups name no rows or others than those there are, or networks are to vary and there is one.

    Notes
    -----
    Scores are derivatives: their sums foretell the removal of a group while it is a small part of the rows
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
    >>> found = group_influence(est, X_query, y_train)  # by class  # doctest: +SKIP
    >>> found.names[found.influence[0].argmin()]  # the class that opposed the first query most  # doctest: +SKIP
    """
    check_confidence(confidence)
    estimators = [check_attribution(e) for e in (estimator if isinstance(estimator, (list, tuple)) else [estimator])]
    if uncertainty not in _SOURCES:
        raise ValueError(f"uncertainty must be one of {_SOURCES}, got {uncertainty!r}")
    if not estimators:
        raise ValueError("expected at least one estimator, got an empty list")
    hashes = [getattr(e, "row_hashes_", None) for e in estimators]
    hashes = [h for h in hashes if h is not None]
    if len({e.n_train_ for e in estimators}) > 1 or any(not np.array_equal(h, hashes[0]) for h in hashes):
        raise ValueError(
            "expected estimators of the same training rows, in the same order, got some of "
            f"{', '.join(str(e.n_train_) for e in estimators)} rows that differ"
        )
    several = len(estimators) > 1
    if uncertainty in ("networks", "both") and not several:
        raise ValueError(
            f"uncertainty={uncertainty!r} needs several estimators, of networks trained with other seeds, got one"
        )
    names, masks = _groups(groups, estimators[0].n_train_)
    sizes = masks.sum(axis=1)
    sums, spreads = [], []
    for chunk in zip(*(score_chunks(e, X_query, y_query) for e in estimators)):
        scores = np.stack([s for _, s in chunk])  # (n_estimators, n, n_train)
        sums.append(scores @ masks.T.astype(np.float64))
        mean = scores.mean(axis=0)
        spreads.append(np.stack([_spread(mean[:, mask]) for mask in masks], axis=1))
    sums = np.concatenate(sums, axis=1)
    rows = np.concatenate(spreads)
    networks = sums.std(axis=0, ddof=1) / np.sqrt(len(sums)) if several else np.full(rows.shape, np.nan)
    use_rows = uncertainty in ("rows", "both", "auto")
    use_networks = several and uncertainty != "rows"
    error, freedom = _together(
        [(rows, np.broadcast_to(sizes - 1, rows.shape))] * use_rows
        + [(networks, np.full(rows.shape, len(sums) - 1))] * use_networks
    )
    influence = sums.mean(axis=0)
    reach = stdtrit(np.maximum(freedom, 1), 0.5 + confidence / 2) * error
    return Bunch(
        influence=influence,
        interval=(influence - reach, influence + reach),
        std_error=error,
        std_error_rows=rows,
        std_error_networks=networks,
        names=names,
        sizes=sizes,
    )


def _spread(scores):
    """Standard error of the sums over rows: (n, size) -> (n,)."""
    size = scores.shape[1]
    return np.sqrt(size) * scores.std(axis=1, ddof=1) if size > 1 else np.full(len(scores), np.nan)


def _together(sources):
    """Independent errors as one, and its degrees of freedom (Welch and Satterthwaite)."""
    variance = sum(error**2 for error, _ in sources)
    weight = sum(error**4 / np.maximum(freedom, 1) for error, freedom in sources)
    freedom = np.divide(variance**2, weight, out=np.ones_like(variance), where=weight > 0)
    return np.sqrt(variance), freedom


def _groups(groups, n_train):
    """Names and masks (n_groups, n_train)."""
    if isinstance(groups, Mapping):
        names, members = list(groups), list(groups.values())
    else:
        labels = groups if isinstance(groups, (list, tuple)) else np.asarray(groups)
        if isinstance(labels, np.ndarray) and labels.ndim == 0:
            raise ValueError(
                "expected groups as a dict from names to rows, a label for each training row, or rows of one group "
                f"after the other, got {groups!r}"
            )
        if len(labels) and all(np.ndim(label) == 0 for label in labels):
            return _by_label(np.asarray(labels), n_train)
        names, members = list(range(len(labels))), list(labels)
    if not members:
        raise ValueError("expected at least one group, got none")
    masks = np.zeros((len(members), n_train), dtype=bool)
    for mask, name, rows in zip(masks, names, members):
        mask[row_indices(rows, n_train, f"group {name!r}")] = True
        if not mask.any():
            raise ValueError(f"group {name!r} holds no rows")
    return names, masks


def _by_label(labels, n_train):
    """A group for each label."""
    if labels.shape != (n_train,):
        raise ValueError(f"expected a label for each of {n_train} training rows, got {len(labels)}")
    try:
        values, inverse = np.unique(labels, return_inverse=True)
    except TypeError as error:
        raise ValueError(
            f"expected labels of one kind, which can be sorted ({error}): name the rows that have none too"
        ) from error
    return values.tolist(), inverse[None] == np.arange(len(values))[:, None]
