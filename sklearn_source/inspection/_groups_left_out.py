"""Groups of training rows behind errors, where leaving rows out of a network's training can be done in closed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from sklearn.utils import Bunch

from ..base import net_with_steps
from ..rows import count_rows, take_rows
from ._contrary_groups import contrary_groups, explained_without, tells_nothing_new
from ._tangent_kernel import tangent_kernel

_LEAST_TRAINING, _MOST_TRAINING = 40, 2000  # rows: kernels of n x n numbers, inverted and clustered
_MOST_QUERIES = 2000
_LEAST_FALL = 0.05  # of the largest fall of an error, for a group to be behind it


def linearised(est, rows, errors, signs, random):
    """The tangent kernel of a method's network, or None.

    Parameters
    ----------
    est : fitted attribution method
    rows : Bunch
        ``X_train``, ``y_train``, ``X_query``, ``y_query``.
    errors : ndarray of int
        Queries to be explained.
    signs : ndarray (n_errors,) or None
        Of residuals, where one number per row is asked for.
    random : RandomState

    Returns
    -------
    found : Bunch or None
        ``kernel``, whose first queries are the errors, and ``weights``, how many queries each stands for. None where
        there is no network, too few or too many rows, or a loss of another kind.
    """
    net, n_train, n_query = net_with_steps(est), count_rows(rows.X_train), count_rows(rows.X_query)
    if net is None or None in (n_train, n_query) or not _LEAST_TRAINING <= n_train <= _MOST_TRAINING:
        return None
    others = np.setdiff1d(np.arange(n_query), errors)
    n_others = len(others)
    if n_query > _MOST_QUERIES:
        others = np.sort(random.choice(others, min(n_others, _MOST_QUERIES - len(errors)), replace=False))
    asked = np.concatenate([errors, others])
    weights = np.ones(len(asked))
    weights[len(errors) :] = n_others / max(len(others), 1)
    y_query = take_rows(rows.y_query, asked)
    kernel = tangent_kernel(net, rows.X_train, rows.y_train, take_rows(rows.X_query, asked), y_query)
    if kernel is not None and signs is not None and kernel.errors.shape[1] > 1:
        output = [est.output]
        kernel = replace(kernel, targets=kernel.targets[:, output], errors=kernel.errors[:, output])
    return None if kernel is None else Bunch(kernel=kernel, weights=weights)


def groups_left_out(linear, signs, taught, n_groups, *, alpha, random):
    """Groups of rows, the most telling first, each with the errors that become smaller without it.

    Parameters
    ----------
    linear : Bunch
        From :func:`linearised`.
    signs : ndarray (n_errors,)
        A group is behind errors of one sign: of the larger fall.
    taught : ndarray (n_train, n_train)
        Scores of all rows for the training rows as queries.
    n_groups : int
        At most.
    alpha : float
        Probability that chance gives one group or more; 1: none is held against chance.
    random : RandomState

    Returns
    -------
    groups : list of Bunch
        ``rows``, ``errors`` (places among them), ``p_value`` and ``explained``.
    """
    groups = contrary_groups(linear.kernel, taught, n_groups, weights=linear.weights, alpha=alpha, random=random)
    for group in groups:
        falls = np.maximum(group.falls[: len(signs)], 0)
        sign = max(np.unique(signs), key=lambda one: falls[signs == one].sum())
        falls = np.where(signs == sign, falls, 0)
        group.errors = np.flatnonzero(falls > _LEAST_FALL * falls.max())
    return [group for group in groups if len(group.errors)]


def in_turns(linear, grown, left_out, n_groups, n_searches):
    """Groups of two searches, one of the first, two of the second, ... without those that tell nothing new.

    Parameters
    ----------
    linear : Bunch
        By which the first, too, are told what they explain.
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
    chosen = chosen[:n_groups]
    untold = [group for group in chosen if "explained" not in group]
    if untold:
        shares = explained_without(linear.kernel, [group.rows for group in untold], linear.weights)
        for group, share in zip(untold, shares):
            group.explained = share
    return chosen
