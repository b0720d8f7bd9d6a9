"""How far a network follows its own linearisation, and the step that stays where it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..gradients import from_matrices, loss_cotangent
from ..rows import Rows
from ._row_gradients import RowGradients, State

# How far the change of the loss may be from that foretold, relative to it: where less than a quarter comes, trust
# regions are made smaller (Nocedal, Wright (2006), "Numerical Optimization", Algorithm 4.1).
_AGREES = 0.75
# Dampings that are tried are multiples of the training's by powers of two, up to where next to nothing moves.
MOST_DAMPED = 2.0**14
_ROUNDINGS = 8.0
# Of rows that weigh alike, how many stand for all in the loss: it is held against what is foretold, roughly.
_ALIKE = 1024


@dataclass
class ProximalLoss:
    """What the weights minimise with other weights or targets of the rows, as far from a checkpoint as training goes.

    With ``o_m`` a row's outputs, ``theta`` the checkpoint and ``D`` what is added to H,

        F(d) = (1/N) sum_m ( w_m l_m(o_m(theta + d)) - < grad l_m(o_m(theta)), o_m(theta + d) > ) + d^T D d / 2

    less its value at ``d = 0``: with the old weights and targets nothing pulls at ``d = 0``, converged or not (the
    proximal Bregman objective, [1]_). Its Gauss-Newton step from there is that of
    :class:`~sklearn_source.curvature.GaussNewtonRefit`.

    Parameters
    ----------
    gradients : RowGradients
    state : State
        theta.
    index : ndarray of int (n_rows,)
        The rows that were trained on.
    scale : list of (float or tensor (groups, out, in)), one per block
        ``D^-1``.
    rows : Rows
        As they were trained on.
    drawn : ndarray (n_rows,)
        1/N, times how often each was drawn.
    pulls : list of (Rows, ndarray (n_groups, n_rows))
        What comes in of each row's loss, or leaves where negative, times ``drawn``.

    Notes
    -----
    Of the rows whose weight is that of most, 1,024 that are spread evenly stand for all.

    References
    ----------
    .. [1] Bae, Ng, Lo, Ghassemi, Grosse (2022), "If Influence Functions are the Answer, Then What is the Question?",
       NeurIPS, Eq. 7.
    """

    gradients: RowGradients
    state: State
    index: np.ndarray
    scale: list[Any]
    rows: Rows
    drawn: np.ndarray
    pulls: list[tuple[Rows, np.ndarray]]

    def __post_init__(self):
        """Which rows are looked at, and how many each stands for: ``_shares`` (n_rows,)."""
        odd, drawn = np.zeros(len(self.index), dtype=bool), np.where(self.drawn > 0, self.drawn, 1.0)
        for _, counts in self.pulls:
            for line in np.round(counts / drawn, 9):
                values, inverse, times = np.unique(line, return_inverse=True, return_counts=True)
                odd |= inverse != times.argmax()
        alike = np.flatnonzero(~odd)
        some = alike[np.unique(np.linspace(0, len(alike) - 1, min(_ALIKE, len(alike))).astype(np.int64))]
        self._shares = odd.astype(np.float64)
        self._shares[some] = len(alike) / max(len(some), 1)

    def held(self, steps):
        """``d^T D d`` of steps: (n_groups,) in float64; what cannot move has none."""
        total = 0.0
        for step, scale in zip(steps, self.scale):
            moves = torch.as_tensor(scale, device=step.device) > 0
            squares = step.double().square() / torch.where(moves, torch.as_tensor(scale, device=step.device), 1.0)
            total = total + torch.where(moves, squares, 0.0).flatten(1).sum(1)
        return total.cpu().numpy()

    def __call__(self, steps, groups):
        """F, and what of it may be rounding, for steps of some groups.

        Parameters
        ----------
        steps : list of tensor (n, groups, out, in), one per block
        groups : ndarray of int (n,)
            Which of the lines of ``pulls``.

        Returns
        -------
        values, rounding : ndarray (n,)
        """
        after = [self._state(steps, i) for i in range(len(groups))]
        values, sizes = np.zeros(len(groups)), np.zeros(len(groups))
        for rows, base, counts in self._summands(groups):
            used = np.flatnonzero(self._shares * (base + np.abs(counts).sum(axis=0)))
            for start in range(0, len(used), self.gradients.batch_size):
                some = used[start : start + self.gradients.batch_size]
                own, others = base[some] * self._shares[some], counts[:, some] * self._shares[some]
                part, size = self._batch(rows.batch(self.index[some]), own, others, after)
                values, sizes = values + part, sizes + size
        precision = torch.finfo(self.gradients.network.dtype).eps
        return values + self.held(steps) / 2, _ROUNDINGS * precision * sizes

    def _summands(self, groups):
        """(Rows, weight of their pull at theta (n_rows,), weights of their losses (n, n_rows))."""
        base, found = self.drawn, []
        for rows, counts in self.pulls:
            own = counts[groups]
            if rows is self.rows:
                found.append((rows, base, base + own))
                base = np.zeros_like(base)
            else:
                found.append((rows, np.zeros_like(base), own))
        return found

    def _batch(self, batch, base, counts, after):
        """Of some rows: what they add to F for every state, and the size of what it is a difference of."""
        (x, y), network = batch, self.gradients.network

        def outputs(state):
            self.gradients.load(state)
            with torch.no_grad():
                output = network.forward_as_trained(x)
            self.gradients.load(self.state)  # a penalty that the loss reads off the weights is D's, and no row's
            return output

        first = outputs(self.state)
        loss_of = network.row_loss.of_outputs(first, y, x)
        losses, pull = loss_of(first).detach().double(), loss_cotangent(network, first, y, x)
        values, sizes = [], []
        for state, own in zip(after, counts):
            output = outputs(state)
            others = loss_of(output).detach().double()
            moved = ((output - first) * pull).reshape(len(pull), -1).double().sum(1)
            size = (output * pull).reshape(len(pull), -1).double().abs().sum(1)
            own, given = (torch.as_tensor(w, device=moved.device) for w in (own, base))
            values.append(float((own * (others - losses) - given * moved).sum()))
            sizes.append(float((own * others.abs() + given * size).sum()))
        return np.array(values), np.array(sizes)

    def _state(self, steps, i):
        """The checkpoint's weights, moved by the step of one group."""
        parameters = dict(self.state.parameters)
        for block, step in zip(self.gradients.blocks, steps):
            for name, value in from_matrices(block, step[i]).items():
                parameters[name] = parameters[name] + value.reshape(parameters[name].shape)
        return State(self.state.step, parameters, self.state.buffers, outside=self.state.outside)


def damped_solutions(refit, loss, vectors, weights):
    """Levenberg-Marquardt: ``(H_w + k D)^-1 v_g``, k the least power of two with which the loss changes as foretold.

    That is, by ``v^T d / 2 - (k - 1) d^T D d / 2`` within three quarters of it, as with k = 1 where the network is
    linear and its loss quadratic.

    Parameters
    ----------
    refit : GaussNewtonRefit
    loss : ProximalLoss
        Of which the vectors are the gradients at the checkpoint.
    vectors : list of tensor (n_groups, groups, out, in), one per block
        v.
    weights : ndarray of shape (n_groups, n_rows)
        w, 1 as in training.

    Returns
    -------
    lengths, coefficients : see :meth:`~sklearn_source.curvature.GaussNewtonRefit.solutions`
    damping : ndarray (n_groups,)
        k.
    """
    pushed, damping = refit.push(vectors), np.ones(len(weights))
    lengths, coefficients = refit.solutions(pushed, weights)
    left = np.arange(len(weights))
    while True:
        own = [v[left] for v in vectors]
        steps = [-step for step in refit.vectors(own, lengths[left], coefficients[left])]
        pull = sum((v.double() * step.double()).flatten(1).sum(1) for v, step in zip(own, steps)).cpu().numpy()
        foretold = pull / 2 - (damping[left] - 1) * loss.held(steps) / 2
        found, rounding = loss(steps, left)
        agrees = np.abs(found - foretold) <= _AGREES * np.abs(foretold) + rounding  # False for NaN
        left = left[~agrees & (damping[left] < MOST_DAMPED)]
        if not len(left):
            return lengths, coefficients, damping
        damping[left] *= 2
        # (H_w + k D)^-1 = (H_{w / k} + D)^-1 / k
        own, others = refit.solutions(pushed[left], weights[left] / damping[left, None])
        by = torch.as_tensor(1 / damping[left])
        lengths[left], coefficients[left] = own * by, others * by[:, None]
