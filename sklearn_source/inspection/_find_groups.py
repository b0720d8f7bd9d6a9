"""The groups of training rows behind errors, the most telling first, and those that chance gives left out."""

from __future__ import annotations

import numpy as np

from ._group_chance import chances
from ._group_search import grow_groups, pool_of, suspected
from ._lessons import Lessons

_OVERLAP = 0.3  # share of a group's rows that may be in better ones
_LEAST_PUSH = 0.05  # of the median row's: rows that push nothing are not specific


def find_groups(harm, push, signs, teach, n_groups, *, sizes=None, alpha=1.0, random=None):
    """Groups of rows, the most telling first.

    Parameters
    ----------
    harm : ndarray of shape (n_errors, n_train)
        How far each row pushes towards each error.
    push : ndarray of shape (n_train,)
        Root mean square of a row's scores over all queries.
    signs : ndarray of shape (n_errors,)
        Errors of one sign are explained together.
    teach : callable or None
        Of rows (n,), the scores (n, n_train) of all rows for what these were to learn. None: rows that push the same
        errors teach alike.
    n_groups : int
        At most.
    sizes : ndarray of shape (n_errors,), optional
        Of residuals, where errors have a sign and a size.
    alpha : float, default=1
        Groups that scores dealt out at random give as coherent with a higher probability are left out; 1: none is.
    random : RandomState, optional
        Deals them out.

    Returns
    -------
    groups : list of Bunch
        ``rows`` and ``errors``, places in ``harm``, and ``p_value``, NaN where nothing was drawn.
    """
    n_train = harm.shape[1]
    push = np.maximum(push, _LEAST_PUSH * np.median(push) + np.finfo(float).tiny)
    suspects = list(suspected(harm, harm / push, signs, sizes))
    pool = pool_of(suspects, n_train)
    lessons = Lessons.of_errors(pool, harm) if teach is None else Lessons.of(pool, n_train, teach(pool))
    grown = [group for group in grow_groups(suspects, lessons) if harm[np.ix_(group.errors, group.rows)].sum() > 0]
    del suspects
    p_values = chances(grown, harm, push, signs, sizes, None if teach is None else lessons, alpha, random)
    groups, taken = [], np.zeros(n_train, dtype=bool)
    for group, p_value in zip(grown, p_values):
        if p_value > alpha or taken[group.rows].mean() > _OVERLAP:
            continue
        taken[group.rows] = True
        group.p_value = p_value
        groups.append(group)
        if len(groups) == n_groups:
            break
    return groups
