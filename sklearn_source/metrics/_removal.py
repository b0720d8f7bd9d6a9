"""What becomes of a prediction when the rows that support it most are removed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import Bunch

from ..utils._argument_checks import check_confidence, check_count, check_k
from ..utils._random import generator_of
from ._intervals import mean_interval
from ._score_validation import check_table, check_truth
from ._top import top_k

_NAME = re.compile(r"query (\d+) top \d+|random \d+ \d+")


def top_k_removals(
    scores: ArrayLike,
    k: int | Sequence[int],
    *,
    n_random: int = 5,
    random_state: int | np.random.RandomState | None = 0,
) -> dict[str, np.ndarray]:
    """The groups of rows to retrain without for :func:`subset_removal_score`.

    Read more in the :ref:`User Guide <subset_removal>`.

    Parameters
    ----------
    scores : array-like of shape (n_query, n_train)
        The rows with the highest scores are removed; ``-scores`` removes those that oppose.
    k : int or sequence of int
        How many.
    n_random : int, default=5
        Groups of random rows for each k, the baseline. All queries share them.
    random_state : int, RandomState instance or None, default=0
        Draws them. The same for several methods: they then share their baselines, and a ``cache`` of the retraining
        trains these once.

    Returns
    -------
    removed : dict of str to ndarray of int
        For :func:`~sklearn_source.retraining.retrain_without`: ``n_query * len(k)`` groups named ``"query q top k"``,
        and the baseline's, ``"random k i"``.

    Raises
    ------
    ValueError
        If scores are no finite table or k is no number of rows below all of them.
    """
    scores = check_table(scores)
    n_train = scores.shape[1]
    sizes = [check_k(size, n_train - 1) for size in np.atleast_1d(np.asarray(k, dtype=object))]
    if not sizes:
        raise ValueError("expected at least one k, got none")
    n_random = check_count("n_random", n_random, 0)
    rng = generator_of(random_state)
    removed = {}
    for size in sorted(set(sizes)):
        for q, rows in enumerate(top_k(scores, size)):
            removed[f"query {q} top {size}"] = np.sort(rows)
        for i in range(n_random):
            removed[f"random {size} {i}"] = np.sort(rng.choice(n_train, size, replace=False))
    return removed


def subset_removal_score(
    truth: Any,
    *,
    queries: ArrayLike | None = None,
    threshold: float | str | None = "auto",
    confidence: float = 0.95,
) -> Bunch:
    """How far removing the k strongest rows of each query moves it, beside removing k random rows.

    Read more in the :ref:`User Guide <subset_removal>`.

    Parameters
    ----------
    truth : Retraining
        From :func:`~sklearn_source.retraining.retrain_without` with the groups of :func:`top_k_removals`.
    queries : array-like of int, shape (n_groups,), optional
        For groups with other names: the query whose rows each group holds, in the order of the truth (its subset of all
        rows left away); -1 for a group of random rows. None: as the names say, or one group for each query in order.
    threshold : float, None or "auto", default="auto"
        A query is flipped where its measurement, above the threshold for the network trained on all rows, is not any
        more. ``"auto"``: 0 for ``"log_odds"``, where a class then has less than half of the probability (with two
        classes: the predicted one changes); None for other measurements: nothing flips.
    confidence : float, default=0.95
        Of the intervals.

    Returns
    -------
    result : Bunch
        k : ndarray of shape (n_k,)
            Numbers of rows removed.
        change : ndarray of shape (n_k,)
            Mean over queries of the measurement with all rows minus without the k strongest, in its unit; positive: it
            fell, as it should.
        change_interval : pair of ndarray of shape (n_k,)
            Lower and upper ends.
        flip_rate : ndarray of shape (n_k,)
            Mean, over the queries above the threshold, of the share of repeats in which they are flipped. NaN without
            a threshold or such queries.
        flip_interval : pair of ndarray of shape (n_k,)
            Lower and upper ends.
        random_change, random_change_interval, random_flip_rate, random_flip_interval
            The same for the random groups of that size; NaN where there are none.
        score : float
            Mean over k and queries of ``change - random_change``; without random groups, of ``change``.
        score_interval : tuple of float
            Of the score.
        per_query_change : ndarray of shape (n_k, n_query)
            NaN for a query without a group of that size.
        measurement : str or None
            What the truth measured.

    Raises
    ------
    ValueError
        If the truth lacks a subset of all rows, or it cannot be told which query a group belongs to.

    Notes
    -----
    Intervals are over other queries of the same kind, given these retrainings; NaN for a single query. For flips of
    more than two classes measure the margin over the best other class, by a callable, with ``threshold=0``.

    References
    ----------
    .. [1] A. Ilyas et al., "Datamodels: Predicting Predictions from Training Data", ICML 2022, section 4.2.
    .. [2] J. Bae, W. Lin, J. Lorraine, R. Grosse, "Training Data Attribution via Approximate Unrolled Differentiation",
       2024, arXiv:2405.12186.

    Examples
    --------
    >>> removed = top_k_removals(est.transform(X_query), k=[10, 50, 100])  # doctest: +SKIP
    >>> truth = retrain_without(net, X, y, X_query, removed=removed, random_state=0)  # doctest: +SKIP
    >>> subset_removal_score(truth).change  # doctest: +SKIP
    """
    check_confidence(confidence)
    masks, outputs = check_truth(truth)
    whole = np.asarray(masks.all(axis=1))
    if not whole.any() or whole.all():
        raise ValueError(
            f"expected a truth with a subset of all rows and others that lack some, got {int(whole.sum())} of all and "
            f"{int((~whole).sum())} that lack some: make it with retrain_without"
        )
    n_query = outputs.shape[2]
    names = names_of_groups(truth, whole)
    n_groups = int((~whole).sum())
    query_of = _check_removed_for_queries(query_of_groups(queries, names, n_groups, n_query), n_groups, n_query)
    threshold = _threshold(threshold, getattr(truth, "measurement", None))
    before = outputs[whole].reshape(-1, n_query).mean(axis=0)
    changes = before - outputs[~whole].mean(axis=1)  # (n_groups, n_query)
    if threshold is None:
        flips = np.full(changes.shape, np.nan)
    else:
        flips = np.where(before > threshold, (outputs[~whole] <= threshold).mean(axis=1), np.nan)
    removed = (~masks[~whole]).sum(axis=1)
    sizes = np.unique(removed[query_of >= 0])
    change, flip, by_chance, flip_by_chance = (np.full((len(sizes), n_query), np.nan) for _ in range(4))
    for i, size in enumerate(sizes):
        random = (removed == size) & (query_of < 0)
        if random.any():
            by_chance[i], flip_by_chance[i] = changes[random].mean(axis=0), flips[random].mean(axis=0)
        for q in np.unique(query_of[(removed == size) & (query_of >= 0)]):
            own = (removed == size) & (query_of == q)
            change[i, q], flip[i, q] = changes[own, q].mean(), flips[own, q].mean()
    gain = change - by_chance if np.isfinite(by_chance).any() else change
    gain = np.array([column[np.isfinite(column)].mean() for column in gain.T if np.isfinite(column).any()])
    result = Bunch(k=sizes, score=float(gain.mean()), score_interval=mean_interval(gain, confidence))
    for name, values, limits in (
        ("change", change, (-np.inf, np.inf)),
        ("flip", flip, (0.0, 1.0)),
        ("random_change", by_chance, (-np.inf, np.inf)),
        ("random_flip", flip_by_chance, (0.0, 1.0)),
    ):
        mean, ends = _mean_over_queries(values, confidence, limits)
        result[f"{name}_rate" if name.endswith("flip") else name] = mean
        result[f"{name}_interval"] = ends
    result.per_query_change = change
    result.measurement = getattr(truth, "measurement", None)
    return result


def _mean_over_queries(values, confidence, limits):
    """Mean of every line and its interval, missing queries left out."""
    lines = [line[np.isfinite(line)] for line in values]
    mean = np.array([line.mean() if len(line) else np.nan for line in lines])
    ends = [mean_interval(line, confidence, *limits) if len(line) else (np.nan, np.nan) for line in lines]
    return mean, tuple(np.array(end) for end in zip(*ends))


def names_of_groups(truth, whole):
    """Names of the subsets that lack rows, a list, or None; `whole` (n_subsets,) says which hold all."""
    names = getattr(truth, "names", None)
    return None if names is None else [name for name, all_rows in zip(names, whole) if not all_rows]


def query_of_groups(queries, names, n_groups, n_query):
    """The query that each group belongs to: ndarray of int, (n_groups,), -1 for groups of none.

    None where the names of the groups do not say, and `queries` does not either.
    """
    if queries is not None:
        query_of = np.asarray(queries)
        fits = query_of.shape == (n_groups,) and query_of.dtype.kind in "iu"
        if not fits or not -1 <= query_of.min() <= query_of.max() < n_query:
            raise ValueError(
                f"expected queries as {n_groups} integers, one for each group, from -1 (random rows) to {n_query - 1}, "
                f"got {query_of.dtype} of shape {query_of.shape}"
            )
        return query_of
    matches = [_NAME.fullmatch(name) for name in names or ()]
    if not matches or not all(matches):
        return None
    query_of = np.array([-1 if match[1] is None else int(match[1]) for match in matches])
    if query_of.max() >= n_query:
        raise ValueError(
            f"expected groups named for the {n_query} queries of the truth, got one of query {query_of.max()}: "
            "make the groups by top_k_removals from scores of the same queries"
        )
    return query_of


def _check_removed_for_queries(query_of, n_groups, n_query):
    """The query of each group, one after the other where they do not say; ValueError where no group has one."""
    if query_of is None:
        if n_groups != n_query:
            raise ValueError(
                f"expected the query that each of {n_groups} groups is removed for, got names that do not tell which "
                f"of {n_query} queries it is: name the groups by top_k_removals, or pass queries="
            )
        return np.arange(n_query)
    if (query_of < 0).all():
        raise ValueError(
            "expected groups that are removed for a query, got groups of random rows alone: add those that "
            "top_k_removals makes for each query"
        )
    return query_of


def _threshold(threshold, measurement):
    """The threshold below which a query is flipped, float or None, of what the user gave."""
    if isinstance(threshold, str) and threshold == "auto":
        return 0.0 if measurement == "log_odds" else None
    if threshold is not None and (
        not isinstance(threshold, Real) or isinstance(threshold, bool) or threshold != threshold
    ):
        raise ValueError(f'expected threshold to be a number, None or "auto", got {threshold!r}')
    return threshold
