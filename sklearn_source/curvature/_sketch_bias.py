"""What a sample of Fisher columns gets wrong on average, and the weights that make it right."""

from __future__ import annotations

import math

import torch

from ._weighted_gram import factored

# Leverage of a column up to which its weight is raised: beyond, less than a quarter of it says something of the others.
_MOST = 0.75
_PROBES = 32


class SketchBias:
    """How much a sample's columns should weigh so that solutions have the size that all columns would give.

    A sum S over n columns by chance, whose expectation is H, leaves directions without curvature. On average
    ``(a S + D)^-1`` is about ``(s H + D)^-1``, with ``s = a (1 - l)`` and l the mean leverage of the columns in
    ``a S (a S + D)^-1``: each says nothing in a direction that is its own. So ``a = 1 / (1 - l)``, at the leverage that
    it leads to, is right (scaled regularization, [1]_; for ridge regression on sketches, [2]_). Where columns are too
    few for that, a is as large as a leverage of three quarters allows, and s times the solution is, on average, that
    of H with ``D / s``: too small where curvature is between D and D / s, not many times too large.

    Parameters
    ----------
    gram : WeightedGram
        ``K = R D^-1 R^T`` of the columns R.
    by_chance : ndarray of bool (n_columns,)
        Which of them stand for others too.

    References
    ----------
    .. [1] Derezinski, Bartan, Pilanci, Mahoney (2020), "Debiasing Distributed Second Order Optimization with Surrogate
       Sketching and Scaled Regularization", NeurIPS.
    .. [2] LeJeune, Patil, Javadi, Baraniuk, Tibshirani (2024), "Asymptotics of the Sketched Pseudoinverse", SIAM
       Journal on Mathematics of Data Science.
    """

    def __init__(self, gram, by_chance):
        self.gram, self._found = gram, {}
        self._chance = torch.as_tensor(by_chance)
        diagonal = gram.K.diagonal()
        self._any = bool(by_chance.any()) and float(diagonal[self._chance].sum()) > 0

    def scaled(self, a):
        """Roots of the columns' weights where those by chance weigh a, and a new Gram matrix of columns times these."""
        root = torch.where(self._chance, torch.full_like(self.gram.K[0], a).sqrt(), 1.0)
        return root, root[:, None] * self.gram.K * root

    def leverage(self, power=0):
        """Mean leverage of the columns by chance at ``a = 2^power``: by random signs (Hutchinson), of a fixed seed."""
        if not self._any:
            return 0.0
        if power not in self._found:
            K, chance, a = self.gram.K, self._chance, 2.0**power
            generator = torch.Generator().manual_seed(0)
            signs = torch.randint(0, 2, (len(K), _PROBES), generator=generator, dtype=K.dtype) * 2 - 1
            signs[~chance] = 0.0
            if power == 0:
                own = self.gram.solve_all(1.0, signs)
            else:
                _, scaled = self.scaled(a)
                scaled.diagonal().add_(1.0)
                own = torch.cholesky_solve(signs, factored(scaled))
            self._found[power] = 1.0 - float((signs * own).sum()) / (_PROBES * int(chance.sum()))
        return self._found[power]

    def weights(self, share=1.0, mass=1.0):
        """What to multiply columns by chance with, and solutions.

        Parameters
        ----------
        share : float
            Of the columns, how many are left: by their weights ``(sum w)^2 / (n sum w^2)``.
        mass : float
            Mean weight of all columns, those left away included: H_w is about mass times H.

        Returns
        -------
        a, s : float
        """
        if not self._any:
            return 1.0, 1.0
        low, high = 0, 0

        def allowed(power):
            leverage = self.leverage(power)
            return 2.0**power * (1 - leverage) <= mass and leverage <= _MOST * share

        if allowed(0):
            while allowed(high := high + 1):
                low = high
        else:
            while not allowed(low := low - 1):
                high = low
        # In between, the logit of the leverage is nearly linear in the power.
        ends = [_logit(self.leverage(power)) for power in (low, high)]

        def at(part):
            leverage = 1 / (1 + math.exp(-(ends[0] + part * (ends[1] - ends[0]))))
            return 2.0 ** (low + part * (high - low)), leverage

        least, most = 0.0, 1.0
        for _ in range(40):
            middle = (least + most) / 2
            a, leverage = at(middle)
            right = a * (1 - leverage) <= mass and leverage <= _MOST * share
            least, most = (middle, most) if right else (least, middle)
        a, leverage = at(least)
        s = a * (1 - leverage) / mass
        return s / (1 - leverage / share), s


def _logit(share):
    share = min(max(share, 1e-12), 1 - 1e-12)
    return math.log(share / (1 - share))
