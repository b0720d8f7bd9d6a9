"""The groups of training rows behind the errors of a network."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import Bunch

from ..rows import count_rows, list_to_array, take_rows
from ..utils._argument_checks import check_count, check_names
from ..utils._random import generator_of
from ._behaviour_errors import error_words, errors_of, measurement_of
from ._behaviour_group import BehaviourGroup, BehaviourGroups
from ._find_groups import find_groups
from ._fit_rows import fit_rows
from ._group_names import check_feature_names, class_labels, describe_rows, is_readable
from ._groups_left_out import groups_left_out, in_turns, linearised
from ._score_chunks import check_attribution, score_chunks

_MOST_ERRORS = 500


def behaviour_groups(
    est: BaseEstimator,
    X_query: Any,
    y_query: Any = None,
    *,
    n_groups: int = 5,
    alpha: float = 0.05,
    X_train: Any = None,
    y_train: Any = None,
    readable: Any = None,
    feature_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> BehaviourGroups:
    """Find the groups of training rows behind the errors of a network.

    Nobody has to bring the groups: errors that rest on the same rows are put together, and so are rows that push them
    and teach alike.

    Read more in the :ref:`User Guide <decisions>`.

    Parameters
    ----------
    est : fitted attribution method
        Whose scores say what pushes an answer.
    X_query : array-like of shape (n_query, ...)
        Held-out rows, right and wrong ones: what a row does to all of them tells what it does to the wrong ones above
        the usual.
    y_query : array-like of shape (n_query, ...), optional
        Their true targets. Errors are the queries of which another class is predicted, or, where rows have not one
        class, the quarter of the largest residuals (losses). None: every query counts, and harm is the push towards
        what is predicted (a regression: upwards).
    n_groups : int, default=5
        Groups at most.
    alpha : float, default=0.05
        Groups are left out that are no stronger than chance makes them: the probability that it makes one or more
        is ``alpha`` at most. 1: none is left out, and nothing is held against chance.
    X_train, y_train : array-like, optional
        The training rows as ``est`` takes queries. None: those that it was fitted on, unless these were a stream.
    readable : array-like of n_train rows, optional
        The training rows as people read them, for descriptions: texts, or a frame. None: ``X_train``.
    feature_names : list of str, optional
        Of the columns of ``readable``; None: those of a frame, else x0, x1, ...
    class_names : list of str, optional
        Name of class 0, 1, ...
    random_state : int, RandomState instance or None, default=None
        Draws 500 errors to explain where there are more, other queries, and what chance gives.

    Returns
    -------
    found : BehaviourGroups
        ``found.groups``, the most telling first, and ``found.table``.

    Raises
    ------
    ValueError
        If targets are not one for each query, settings are out of range, or scores are not finite.
    TypeError
        If the estimator is no attribution method, or was fitted on a stream and ``X_train`` is not given.

    See Also
    --------
    predict_action : What removing, relabelling or reweighting a group should do.
    group_influence : What named groups of rows did.
    audit_training_rows : Suspicious rows one by one.

    Notes
    -----
    Where 40 to 2,000 rows train a network on classes or numbers, groups are judged by leaving them out: the network,
    linearised at its weights [3]_, is fitted by ridge regression to the targets without them, in closed form (with
    ``A = K + lambda I``, K the tangent kernel, predictions move by ``K_qT (A^-1)_TG [(A^-1)_GG]^-1 [A^-1 y]_G``). Rows
    that agree hold each other up, which sums of scores miss. A group tells more the better what goes with it fits the
    errors of all queries. Two kinds take turns. Rows that contradict the others are nodes of trees over rows that are
    alike to the network, or teach alike by the scores, or are alike and off the same way; members are chosen anew by
    how far they are off once the group is left out. Rows that share what others do not (a mark; their targets may be
    right) are rows that learn alike, by the scores, or hold each other up; what is learnt early is asked of them.
    Against chance the errors are dealt out among the queries ``1 / alpha - 1`` times, 19 by default, and groups
    searched for as before; a group stays that is stronger than the strongest of ``1 - alpha`` of these searches, with
    each kind's strength in units of its mean. Where errors are of classes, groups that grow from harm, as below, have
    every third turn, the first among them, and either search half of ``alpha``. The linearised network knows the
    training rows and their targets alone: not what was learnt before them, weights of rows, or augmentation.

    Elsewhere (more rows, sequences, methods without a network) the scores for the errors are all there is. The errors
    are the leaves of a Ward tree over their score profiles. For each node the 40 rows of most harm are taken, by their
    scores and by their scores in units of how far a row pushes any query (as [1]_ relate influences to a row's own).
    Rows among them that teach alike, by the cosine of their scores for the training rows as queries, are the core of a
    group, and so are rows that learn alike, by the cosine of all rows' scores for them. Rows that do harm join in the
    order of their mean cosine to the group, as many as make the sum of harm by the square root of the size largest, and
    none that is less than half as alike as the median member. Errors of one profile (a query that is there twice) are
    never parted. In a regression all rows join that are half as alike, whichever way they push, and groups are ordered
    by what they do to the squares of all large residuals of a sign. Against chance the scores of each error, in units
    of how far rows push any query, are dealt out among the rows.

    A group is what pushes, not what is wrong: rows of a class push what is like them to it, and some groups of a clean
    data set will be that, by no chance. :ref:`How often a planted cause is found <planted_causes>` is measured. Of more
    than 2,000 queries the errors and as many others as make 2,000 are looked at. Costs ``transform`` of the queries and
    of all training rows (elsewhere of up to 1,000, or 600 where more than 30,000 train), a backward pass for each row
    and output, about ``n_train^3`` operations, and ``1 / alpha`` searches.

    References
    ----------
    .. [1] E. Barshan, M.-E. Brunet, G. K. Dziugaite, "RelatIF: Identifying Explanatory Training Samples via Relative
       Influence", AISTATS 2020.
    .. [2] E. Nguyen, J. Bertram, E. Kortukov, J. Y. Song, S. J. Oh, "Towards User-Focused Research in Training Data
       Attribution for Human-Centered Explainable AI", 2024, arXiv:2409.16978.
    .. [3] A. Jacot, F. Gabriel, C. Hongler, "Neural Tangent Kernel: Convergence and Generalization in Neural Networks",
       NeurIPS 2018.

    Examples
    --------
    >>> found = behaviour_groups(est, X_val, y_val)  # doctest: +SKIP
    >>> found.table  # doctest: +SKIP
    >>> predict_action(est, "remove", found.groups[0].rows, X_val, y_val).table()  # doctest: +SKIP
    """
    check_attribution(est)
    check_count("n_groups", n_groups)
    if not isinstance(alpha, Real) or isinstance(alpha, bool) or not 0.001 <= alpha <= 1:
        raise ValueError(f"expected alpha to be a number from 0.001 to 1, got {alpha!r}")
    if X_train is None and y_train is not None:
        raise ValueError("expected X_train where y_train is given, got None: pass the training rows too")
    check_names("feature_names", feature_names)
    check_names("class_names", class_names)
    random = generator_of(random_state)
    X_train, y_train = fit_rows(getattr(est, "members_", [est])[0], X_train, y_train) or (None, None)
    for name, data in (("X_train", X_train), ("readable", readable)):
        n = None if data is None else count_rows(data)
        if data is not None and n != est.n_train_:
            raise ValueError(f"expected {name} of {est.n_train_} rows, those of fit, got {n}")
    list_to_array(X_train, "X_train")  # refused whether or not groups are found that they describe
    n_query, n_targets = count_rows(X_query), None if y_query is None else count_rows(y_query)
    if None not in (n_query, n_targets) and n_query != n_targets:
        raise ValueError(f"expected one target for each of {n_query} queries, got {n_targets}")
    readable = X_train if readable is None else readable
    described = readable if is_readable(readable) else None
    check_feature_names(described, feature_names)
    asked = errors_of(est, X_query, y_query)
    unit = _unit(est)
    if asked.errors is not None and not len(asked.errors):
        return BehaviourGroups([], asked.errors, unit)
    push, scores, n_query = _scores_of(est, X_query, y_query, asked.errors)
    errors = np.arange(n_query) if asked.errors is None else asked.errors
    if len(errors) > _MOST_ERRORS:
        drawn = np.sort(random.choice(len(errors), _MOST_ERRORS, replace=False))
        errors, scores = errors[drawn], scores[drawn]
        asked.signs = None if asked.signs is None else asked.signs[drawn]
        asked.sizes = None if asked.sizes is None else asked.sizes[drawn]
    signs = np.ones(len(errors)) if asked.signs is None else asked.signs
    direction = signs if asked.harms_upwards else -signs
    harm = direction[:, None] * scores

    def teach(rows):
        own = None if y_train is None else take_rows(y_train, rows)
        return np.concatenate([part for _, part in score_chunks(est, take_rows(X_train, rows), own)])

    known = None if X_train is None else teach
    linear = None
    if known is not None and asked.errors is not None:
        rows = Bunch(X_train=X_train, y_train=y_train, X_query=X_query, y_query=y_query)
        linear = linearised(est, rows, errors, asked.signs, random)
    # Errors of classes are searched twice, and either search is held against half.
    twice = linear is not None and asked.signs is None
    options: dict[str, Any] = {"alpha": float(alpha) / 2 if twice and alpha < 1 else float(alpha), "random": random}
    grown, left_out = [], []
    if linear is not None:
        taught = teach(np.arange(est.n_train_))
        known = taught.__getitem__  # the other search asks for some of the same scores
        left_out = groups_left_out(linear, signs, taught, int(n_groups), **options)
    if linear is None or twice:
        grown = find_groups(harm, push, signs, known, int(n_groups), sizes=asked.sizes, **options)
    found = grown
    if linear is not None:
        found = in_turns(linear, grown, left_out, int(n_groups), float(alpha) / options["alpha"])
    total = np.maximum(harm, 0).sum()
    labels = class_labels(est, y_train)
    result = []
    for group in found:
        pushed = harm[np.ix_(group.errors, group.rows)].sum(axis=1) > 0
        behind = group.errors[pushed] if pushed.any() else group.errors
        amount = float(harm[np.ix_(behind, group.rows)].sum())
        words = describe_rows(
            group.rows, labels=labels, readable=described, feature_names=feature_names, class_names=class_names
        )
        wrong = error_words(asked, errors[behind], signs[behind], class_names)
        told = BehaviourGroup(
            rows=group.rows,
            queries=errors[behind],
            harm=amount,
            share=amount / total,
            description=f"{words}; behind {len(behind)} {wrong}",
            p_value=group.p_value,
            explained=group.get("explained", np.nan),
            error=_standard_error(est, X_query, y_query, errors[behind], direction[behind], group.rows),
        )
        result.append(told)
    return BehaviourGroups(result, errors, unit)


def _unit(est):
    """The unit of the scores, in words."""
    if not getattr(est, "has_unit", False):
        return "none: an order"
    name = measurement_of(est) if hasattr(est, "net_") else None
    return {"log_odds": "log-odds", "prediction": "output", "neg_loss": "loss"}.get(name, "measurement")


def _scores_of(est, X_query, y_query, errors):
    """Root mean square of each row's scores over queries (n_train,), scores of the errors, number of queries."""
    squares, kept, n = np.zeros(est.n_train_), [], 0
    for queries, scores in score_chunks(est, X_query, y_query):
        squares += (scores**2).sum(axis=0)
        index = np.arange(queries.start, queries.stop)
        kept.append(scores if errors is None else scores[np.isin(index, errors)])
        n += len(scores)
    return np.sqrt(squares / max(n, 1)), np.concatenate(kept), n


def _standard_error(est, X_query, y_query, queries, direction, rows):
    """Of the harm of rows, over the members of an ensemble; None for one network."""
    members = getattr(est, "members_", [])
    if len(members) < 2:
        return None
    X, y = take_rows(X_query, queries), None if y_query is None else take_rows(y_query, queries)
    sums = [
        sum((direction[part, None] * scores[:, rows]).sum() for part, scores in score_chunks(member, X, y))
        for member in members
    ]
    return float(np.std(sums, ddof=1) / np.sqrt(len(sums)))
