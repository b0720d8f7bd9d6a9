"""How far each pull moves the weights until the end of training, by the velocity of momentum.

torch's SGD keeps ``v_1 = g_1``, ``v_k = momentum_k v_(k-1) + (1 - dampening_k) g_k`` and moves the weights by
``-lr_k v_k`` (Nesterov: by ``-lr_k (g_k + momentum_k v_k)``; without momentum at a step by ``-lr_k g_k``, the velocity
staying as it is). A pull of one at step k so moves them by ``r_k`` in all, which is

    lr (1 - dampening) / (1 - momentum)

far from the end (Bae et al. 2024, appendix D), and less in the last 1 / (1 - momentum) steps. h sums the r.

Under a curvature s, a constant pull of one has moved the weights by ``F(s) = h - m s + O(s^2)`` at the end, where m is
how far they are moved by the pull that the way so far has become. The flow with ``F = (1 - exp(-h s - kappa s^2)) / s``
is the same to second order for ``kappa = h^2 / 2 - m``, the sum over the steps of ``r_k (z_k + r_k / 2)`` with z_k how
far the weights are behind where their velocity takes them. It is what makes large steps, and momentum, faster than the
flow of their rates.
"""

from __future__ import annotations

import numpy as np

__all__ = ["pull_responses", "second_order_terms"]


def pull_responses(lr, momentum, dampening, nesterov, at_rest, worth):
    """How far a pull of one at each step moves the weights in all.

    Parameters
    ----------
    lr, momentum, dampening : ndarray (n_steps, n_groups)
    nesterov : sequence of bool, one per group
    at_rest : bool
        Whether there was no velocity before: the first pull is not damped then.
    worth : ndarray (n_groups,)
        How far one of velocity at the end goes on to move them.

    Returns
    -------
    responses : ndarray (n_steps, n_groups)
    worth : ndarray (n_groups,)
        Of a velocity before the first step.
    """
    responses, worth = lr.copy(), np.array(worth, dtype=np.float64)
    for group in np.flatnonzero(momentum.any(axis=0)):
        columns = [array[:, group].tolist() for array in (lr, momentum, dampening)]
        first = next(k for k, kept in enumerate(columns[1]) if kept) if at_rest else -1
        responses[:, group], worth[group] = _backwards(*columns, nesterov[group], first, worth[group])
    return responses, worth


def _backwards(lr, momentum, dampening, nesterov, first, worth):
    responses = list(lr)
    for k in reversed(range(len(lr))):
        if not (kept := momentum[k]):
            continue
        step = kept * lr[k] if nesterov else lr[k]  # of one of the new velocity
        pulled = 1.0 if k == first else 1.0 - dampening[k]
        responses[k] = pulled * (step + worth) + (lr[k] if nesterov else 0.0)
        worth = kept * (step + worth)
    return responses, worth


def second_order_terms(lr, momentum, dampening, nesterov, at_rest, pulls, responses):
    """What each step adds to kappa, (n_steps, n_groups), where every step is pulled by so many batches."""
    moved = responses * pulls  # in the end
    terms = moved**2 / 2
    for group in np.flatnonzero(momentum.any(axis=0)):
        columns = [array[:, group].tolist() for array in (lr, momentum, dampening, pulls)]
        way = _way(*columns, nesterov[group], at_rest)
        behind = np.concatenate([[0.0], np.cumsum(moved[:, group])[:-1]]) - way
        terms[:, group] += moved[:, group] * behind
    return terms


def _way(lr, momentum, dampening, pulls, nesterov, at_rest):
    """How far the weights have come before each step."""
    way, here, velocity = [], 0.0, 0.0
    for rate, kept, damped, pull in zip(lr, momentum, dampening, pulls):
        way.append(here)
        if not kept:
            here += rate * pull
            continue
        velocity = pull if at_rest else kept * velocity + (1.0 - damped) * pull
        at_rest = False
        here += rate * (pull + kept * velocity if nesterov else velocity)
    return way
