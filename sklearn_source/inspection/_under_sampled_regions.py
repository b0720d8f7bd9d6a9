"""Queries whose predictions rest on few training rows, and what more of these would give."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.base import BaseEstimator
from sklearn.utils import Bunch

from ..rows import take_rows
from ..utils._argument_checks import check_count, check_k, check_names
from ..utils._random import generator_of
from ._group_names import check_feature_names, class_labels, describe_rows, is_readable
from ._score_chunks import check_attribution, score_chunks
from ._table import make_table


def under_sampled_regions(
    estimator: BaseEstimator,
    X_query: Any,
    y_query: Any = None,
    *,
    k: int = 10,
    share: float = 0.1,
    weight: float | None = None,
    n_random: int = 20,
    readable: Any = None,
    feature_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    random_state: int | np.random.RandomState | None = None,
    as_frame: bool | str = "auto",
) -> Bunch:
    """Find the predictions that rest on few training rows, and these rows: where more data would tell most.

    Read more in the :ref:`User Guide <decisions>`.

    Parameters
    ----------
    estimator : fitted attribution method
        Whose scores say what supports a prediction.
    X_query : array-like of shape (n_query, ...)
        Rows from where the network is to be used, as ``transform`` takes them.
    y_query : array-like of shape (n_query, ...), optional
        Their targets, for measurements that need them. Classifiers need none.
    k : int, default=10
        Strongest supporting rows looked at for each query.
    share : float, default=0.1
        Share of the queries that count as under-sampled: those that rest on the fewest rows.
    weight : float, optional
        Above 1: what ``weight`` times the rows of a region would do is predicted, 2 for as many again of the kind.
        None: nothing is predicted. Needs a method with ``predict_reweighting``, as gradient methods are.
    n_random : int, default=20
        Draws of as many random rows that a region's gain is compared with.
    readable : array-like of n_train rows, optional
        The training rows as people read them, for descriptions: texts, a frame or a matrix. None: those that the
        estimator was fitted on.
    feature_names : list of str, optional
        Of the columns of ``readable``; None: those of a frame, else x0, x1, ...
    class_names : list of str, optional
        Name of class 0, 1, ...
    random_state : int, RandomState instance or None, default=None
        Draws the random rows.
    as_frame : bool or "auto", default="auto"
        A pandas DataFrame, or else a NumPy record array. "auto": a frame where pandas is installed.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        table : DataFrame or recarray of n_query rows
            Fewest rows first. Columns: ``query``, its place; ``effective_rows``, how many rows support it, were their
            shares equal: the square of the sum of its positive scores by the sum of their squares, from 1 to n_train, 0
            without positive scores; ``top_share``, what part of the positive scores the k strongest rows have;
            ``strongest_row`` and its ``strongest_share``; ``under_sampled``; ``region``, a number for queries that
            rest on common rows, -1 for those not under-sampled.
        regions : list of Bunch
            For each region, largest first: ``queries``, and ``rows``, the training rows among the k strongest of any of
            them, by falling number of queries they support (``n_supported``); ``effective_rows``, the mean over its
            queries, and ``thin``, that by the mean over the queries in no region; ``description``, what to collect, in
            words. With ``weight`` also: ``gain``, the mean change of the region's queries, in the unit of the
            measurement, that ``predict_reweighting`` foretells where its rows weigh ``weight``; ``gain_error``, its
            standard error over an ensemble's networks, else None; ``random_gain``, the mean of the same queries where
            random rows do, as many, ``random_spread`` their standard deviation.

    Raises
    ------
    ValueError
        If settings are out of range, or the estimator gives scores that are not finite.
    TypeError
        If the estimator is no attribution method.

    See Also
    --------
    audit_training_rows : Training rows to look at, worst first.
    group_influence : What named groups of training rows did to predictions.

    Notes
    -----
    To weigh rows more is to see the same rows again: new ones of the kind bring what the old ones lack, and a gain is
    what their place in the data, not their variety, would give. Where more of the measurement is no better (the
    prediction of a regression) a gain is a change: fit the estimator with ``measurement="neg_loss"`` and pass
    ``y_query``. The order of regions holds better than the size.

    Two under-sampled queries are in one region if the one with fewer strongest rows (k, or all that support it) shares
    at least half of them with the other, or both are linked so to others of it. Few rows are no proof of a bad
    prediction: that some rows are much alike and carry it together looks the same as many rows that carry it a
    little. Costs ``transform`` of the queries, a part of them at a time, and with ``weight`` one
    ``predict_reweighting`` of a region's queries for each region and network.

    References
    ----------
    .. [1] E. Nguyen, J. Bertram, E. Kortukov, J. Y. Song, S. J. Oh, "Towards User-Focused Research in Training Data
       Attribution for Human-Centered Explainable AI", 2024, arXiv:2409.16978.

    Examples
    --------
    >>> result = under_sampled_regions(est, X_test)  # doctest: +SKIP
    >>> result.regions[0].rows  # the few rows that these predictions rest on  # doctest: +SKIP
    >>> region = under_sampled_regions(est, X_test, y_test, weight=2.0).regions[0]  # doctest: +SKIP
    >>> region.description, region.gain, region.random_gain  # what to collect, and what for  # doctest: +SKIP
    """
    check_attribution(estimator)
    n_train = estimator.n_train_
    check_k(k, n_train)
    _check_weight(estimator, weight)
    check_count("n_random", n_random)
    check_names("feature_names", feature_names)
    check_names("class_names", class_names)
    if not isinstance(share, Real) or isinstance(share, bool) or not 0 < share <= 1:
        raise ValueError(f"expected share to be between 0 and 1, got {share!r}")
    X_train, y_train = getattr(getattr(estimator, "members_", [estimator])[0], "_given", (None, None))[:2]
    readable = X_train if readable is None else readable
    readable = readable if is_readable(readable) else None
    check_feature_names(readable, feature_names)
    effective, values, rows = (
        np.concatenate(parts)
        for parts in zip(*(_supporting_rows(scores, k) for _, scores in score_chunks(estimator, X_query, y_query)))
    )
    n_query = len(effective)
    under_sampled = np.zeros(n_query, dtype=bool)
    under_sampled[np.argsort(effective, kind="stable")[: max(1, round(share * n_query))]] = True
    region = _region_of_query(np.flatnonzero(under_sampled), rows, values > 0, n_train, n_query)
    order = np.argsort(effective, kind="stable")
    columns = {
        "query": np.arange(n_query),
        "effective_rows": effective,
        "top_share": values.sum(axis=1),
        "strongest_row": rows[:, 0],
        "strongest_share": values[:, 0],
        "under_sampled": under_sampled,
        "region": region,
    }
    table = make_table({name: column[order] for name, column in columns.items()}, as_frame)
    regions = [_describe_region(np.flatnonzero(region == r), rows, values > 0) for r in range(region.max() + 1)]
    usual = effective[region < 0].mean() if (region < 0).any() else np.nan
    random = generator_of(random_state)
    labels = class_labels(estimator, y_train)
    for one in regions:
        one.effective_rows = float(effective[one.queries].mean())
        one.thin = float(one.effective_rows / usual) if usual > 0 else np.nan
        words = describe_rows(
            one.rows, labels=labels, readable=readable, feature_names=feature_names, class_names=class_names,
        )  # fmt: skip
        one.description = f"more like {words}"
        if weight is not None:
            one.update(_gain(estimator, X_query, y_query, one, float(weight), n_random, random))
    return Bunch(table=table, regions=regions)


def _check_weight(estimator, weight):
    """Raise a ValueError for a weight that adds nothing, or that the estimator knows nothing of."""
    if weight is None:
        return
    if not isinstance(weight, Real) or isinstance(weight, bool) or not 1 < weight < np.inf:
        raise ValueError(f"expected weight to be None or a number above 1, got {weight!r}")
    if not hasattr(estimator, "predict_reweighting"):
        raise ValueError(
            f"weight={weight!r} needs an estimator with predict_reweighting, the gradient methods, got "
            f"{type(estimator).__name__}: pass weight=None"
        )


def _gain(estimator, X_query, y_query, region, weight, n_random, random):
    """What more weight on a region's rows does to its queries, and more weight on as many random rows: a Bunch."""
    weights = np.ones((1 + n_random, estimator.n_train_))
    weights[0, region.rows] = weight
    for line in weights[1:]:
        line[random.choice(estimator.n_train_, len(region.rows), replace=False)] = weight
    X, y = take_rows(X_query, region.queries), None if y_query is None else take_rows(y_query, region.queries)
    members = list(getattr(estimator, "members_", [estimator]))
    gains = np.stack([m.predict_reweighting(X, y, weights=weights).mean(axis=0) for m in members])
    mean, n = gains.mean(axis=0), len(members)
    return Bunch(
        gain=float(mean[0]),
        gain_error=float(gains[:, 0].std(ddof=1) / np.sqrt(n)) if n > 1 else None,
        random_gain=float(mean[1:].mean()),
        random_spread=float(mean[1:].std(ddof=1)) if n_random > 1 else None,
    )


def _supporting_rows(scores, k):
    """What supports each query: scores (n, n_train) to (effective number of rows (n,), shares (n, k), rows (n, k)).

    Shares are those of the k strongest rows in the sum of positive scores, strongest first.
    """
    positive = scores.clip(min=0)
    total, squares = positive.sum(axis=1), (positive**2).sum(axis=1)
    rows = np.argsort(-positive, axis=1, kind="stable")[:, :k]
    values = np.take_along_axis(positive, rows, axis=1) / np.where(total > 0, total, 1)[:, None]
    return np.divide(total**2, squares, out=np.zeros_like(total), where=squares > 0), values, rows


def _region_of_query(queries, rows, supports, n_train, n_query):
    """Number of the region of every query, (n_query,): those of most queries first, -1 for queries that are in none.

    Takes the positions of the under-sampled queries, and for all queries their strongest rows (n_query, k) and which
    of these support them, a mask of the same shape.
    """
    query, rank_in_query = np.nonzero(supports[queries])
    shape = (len(queries), n_train)
    members = csr_matrix((np.ones(len(query)), (query, rows[queries][query, rank_in_query])), shape=shape)
    common = (members @ members.T).tocoo()
    sizes = np.bincount(query, minlength=len(queries))
    linked = common.data >= np.minimum(sizes[common.row], sizes[common.col]) / 2
    links = (np.ones(int(linked.sum())), (common.row[linked], common.col[linked]))
    _, label = connected_components(csr_matrix(links, shape=(len(queries),) * 2), directed=False)
    sizes = np.bincount(label)
    rank = np.empty(len(sizes), dtype=np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    region = np.full(n_query, -1)
    region[queries] = rank[label]
    return region


def _describe_region(queries, rows, supports):
    """A Bunch of the queries of a region, the rows that it rests on, and how many of the queries each supports."""
    region_rows, counts = np.unique(rows[queries][supports[queries]], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return Bunch(queries=queries, rows=region_rows[order], n_supported=counts[order])
