"""Whether rows push errors together more than chance would have them do."""

from __future__ import annotations

import math

import numpy as np

from ._group_search import grow_groups, pool_of, suspected
from ._lessons import Lessons


def chances(groups, harm, push, signs, sizes, lessons, alpha, random):
    """How often scores that are dealt out at random give a group as strong as each of some groups.

    The scores of every error, in units of how far the rows push any answer, are dealt out among the
    rows anew, for each error by itself: rows and errors stay as strong as they are, and what rows do together is gone.
    Then groups are searched for as they were among the scores. A group is held against the strongest one of each
    search, by the strength that orders groups, for each respect in units of what is usual by chance, so that ``alpha``
    is the probability that chance gives one group or more. Of two groups of a respect the check never prefers the
    second: another measure than that of the order would take small pure groups for chance, and large loose ones not.

    Parameters
    ----------
    groups : list of Bunch
        With ``respect`` and ``strength``.
    harm : ndarray of shape (n_errors, n_train)
    push : ndarray of shape (n_train,)
        Positive: what harm of a row is measured in.
    signs : ndarray of shape (n_errors,)
    sizes : ndarray of shape (n_errors,) or None
    lessons : Lessons or None
        What rows teach; None where the scores say it too.
    alpha : float
        The search is repeated ``1 / alpha - 1`` times, rounded up, and no more once no group can be significant.
    random : RandomState

    Returns
    -------
    p_values : ndarray of shape (n_groups,)
        NaN for ``alpha`` of 1 and more, which asks for no search. Above ``alpha``, no more than that is known.
    """
    n_draws = max(0, math.ceil(1 / alpha - 1 - 1e-9))
    if not n_draws or not groups:
        return np.full(len(groups), np.nan)
    unit = push.astype(np.float32)
    dealt = (harm / push).astype(np.float32)
    found = np.array([_by_respect(group) for group in groups])  # (n_groups, 2)
    largest = np.zeros((0, 2))
    for _ in range(n_draws):
        for own in dealt:
            own[:] = own[random.permutation(len(own))]
        by_chance = [_by_respect(one) for one in _by_chance(dealt, unit, signs, sizes, lessons, random)]
        largest = np.vstack([largest, np.max([(0.0, 0.0), *by_chance], axis=0)])
        # The scores as they are count as one more draw, or the draws would be nearer to their mean than they.
        usual = np.vstack([largest, found.max(axis=0)]).mean(axis=0) + np.finfo(float).tiny
        as_large = ((largest / usual).max(axis=1) >= (found / usual).max(axis=1)[:, None]).sum(axis=1)
        if (1 + as_large > alpha * (1 + n_draws) + 1e-9).all():
            break
    return (1 + as_large) / (1 + n_draws)


def _by_respect(group):
    """Strength as what teaches and as what learns alike, 0 for the other: (2,)."""
    return (group.strength, 0.0) if group.respect == "teach" else (0.0, group.strength)


def _by_chance(specific, push, signs, sizes, lessons, random):
    """The groups that are found in scores that were dealt out at random."""
    harm, n_train = specific * push, specific.shape[1]
    suspects = list(suspected(harm, specific, signs, sizes))
    if lessons is None:
        lessons = Lessons.of_errors(pool_of(suspects, n_train), harm)
    else:  # to ask what other rows teach would cost as much again each time
        lessons = lessons.of_others(pool_of(suspects, n_train, lessons.n_pool), random)
    return grow_groups(suspects, lessons)
