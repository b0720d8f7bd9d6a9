"""Groups of training rows behind errors, where leaving rows out of a network's training can be done in closed form."""

from __future__ import annotations

import numpy as np

from ..base import net_with_steps
from ..rows import count_rows, take_rows
from ._contrary_groups import contrary_groups, tells_nothing_new
from ._tangent_kernel import tangent_kernel

_LEAST_TRAINING, _MOST_TRAINING = 40, 2000  # rows: kernels of n x n numbers, inverted and clustered
_MOST_QUERIES = 2000
_LEAST_FALL = 0.05  # of the largest fall of an error, for a group to be behind it


def groups_left_out(est, rows, errors, signs, teach, n_groups, *, alpha, random):
    """Groups of rows, the most telling first, each with the errors that become smaller without it.

    Parameters
    ----------
    est : fitted attribution method
    rows : Bunch
        ``X_train``, ``y_train``, ``X_query``, ``y_query``.
    errors : ndarray of int
        Queries to be explained.
    signs : ndarray (n_errors,)
        A group is behind errors of one sign: of the larger fall.
    teach : callable
        Of rows (n,), the scores (n, n_train) of all rows for what these were to learn.
    n_groups : int
        At most.
    alpha : float
        Probability that chance gives one group or more; 1: none is held against chance.
    random : RandomState

    Returns
    -------
    groups : list of Bunch, or None
        ``rows``, ``errors`` (places in ``errors``), ``p_value`` and ``explained``. None where there is no network, too
        few or too many rows, or a loss of another kind.
    """
    net, n_train, n_query = net_with_steps(est), count_rows(rows.X_train), count_rows(rows.X_query)
    if net is None or None in (n_train, n_query) or not _LEAST_TRAINING <= n_train <= _MOST_TRAINING:
        return None
    # The errors first: what is known of a query is in its place.
    others = np.setdiff1d(np.arange(n_query), errors)
    n_others = len(others)
    if n_query > _MOST_QUERIES:
        others = np.sort(random.choice(others, min(n_others, _MOST_QUERIES - len(errors)), replace=False))
    asked = np.concatenate([errors, others])
    weights = np.ones(len(asked))
    weights[len(errors) :] = n_others / max(len(others), 1)
    y_query = take_rows(rows.y_query, asked)
    kernel = tangent_kernel(net, rows.X_train, rows.y_train, take_rows(rows.X_query, asked), y_query)
    if kernel is None:
        return None
    groups = contrary_groups(kernel, teach(np.arange(n_train)), n_groups, weights=weights, alpha=alpha, random=random)
    for group in groups:
        falls = np.maximum(group.falls[: len(errors)], 0)
        sign = max(np.unique(signs), key=lambda one: falls[signs == one].sum())
        falls = np.where(signs == sign, falls, 0)
        group.errors = np.flatnonzero(falls > _LEAST_FALL * falls.max())
    return [group for group in groups if len(group.errors)]


def in_turns(grown, left_out, n_groups, n_searches):
    """Groups of two searches, one of the first, two of the second, ... without those that tell nothing new.

    Parameters
    ----------
    grown, left_out : list of Bunch
        With ``rows`` and ``p_value``.
    n_groups : int
        At most.
    n_searches : float
        What p-values are multiplied by, for there being so many.

    Returns
    -------
    groups : list of Bunch
    """
    first, second = iter(grown), iter(left_out)
    chosen, sets, parts = [], [], (first, second, second)
    for turn in range(3 * n_groups):
        for group in parts[turn % 3]:
            own = set(group.rows.tolist())
            if any(tells_nothing_new(own, other) for other in sets):
                continue
            sets.append(own)
            group.p_value = np.minimum(group.p_value * n_searches, 1)
            chosen.append(group)
            break
    return chosen[:n_groups]
