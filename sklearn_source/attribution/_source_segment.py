"""A segment of training as SOURCE walks it, and what users see of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from ..base import State
from ..curvature import Inverse, SpectralFunction

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
# Rates are compared with the largest one; a parameter that did not move in a segment still needs a positive metric.
_METRIC_FLOOR = 1e-24


@dataclass(frozen=True)
class SegmentSummary:
    """What SOURCE used of one segment of the training.

    Read more in the :ref:`User Guide <segments>`.

    Parameters
    ----------
    stage : int
        The training stage that it is of.
    start, end : int
        The segment holds the optimizer steps ``start + 1 .. end``.
    checkpoints : tuple of int
        The steps of its checkpoints.
    weights : ndarray of shape (n_checkpoints,)
        Their quadrature weights, summing to one.
    optimizer : str
        Its class name. The curvature of an adaptive one is that in its own metric.
    integrated_learning_rate : dict of str to float
        Per parameter, :meth:`Trajectory.integrated_learning_rate` of the steps, with what an adaptive
        optimizer makes of the rate beside its preconditioner.
    weight_decay : dict of str to float
        Per parameter, the mean weight decay.
    h_sigma_quantiles : dict of float to float
        Quantiles over all curvature directions of integrated learning rate times (eigenvalue + weight decay). Nearly
        all above about 10: the segment acts like an influence function averaged over it. All far below 1: like TracIn.
    """

    stage: int
    start: int
    end: int
    checkpoints: tuple[int, ...]
    weights: np.ndarray
    optimizer: str
    integrated_learning_rate: dict[str, float] = field(repr=False)
    weight_decay: dict[str, float] = field(repr=False)
    h_sigma_quantiles: dict[float, float]


@dataclass
class FittedSegment:
    """A segment ready to be walked.

    ``curvature`` is that of ``P^(1/2) H P^(1/2)``, ``P`` the product of ``metric``, the blocks' rates relative to the
    largest, ``h``, and of ``roots`` squared, the optimizer's preconditioner, where there is one. ``shift`` is what
    weight decay adds to its eigenvalues, per block, and ``second`` what steps of finite size add to the exponent.
    """

    states: list
    weights: np.ndarray
    curvature: object
    h: float
    metric: list
    shift: list
    credited: np.ndarray
    n_rows: int
    second: list
    roots: list | None = None

    def _exponent(self, s, block):
        """``-(x + c x^2)``, x = h s with s = sigma + rho."""
        x = self.h * s
        return -x * (1.0 + (np.mean(self.second) if block is None else self.second[block]) * x)

    def _integrate(self, s, block):
        small = s * self.h < 1e-12
        return torch.where(small, self.h, -torch.expm1(self._exponent(s, block)) / torch.where(small, 1.0, s))

    @property
    def propagation(self):
        """``exp(-x - c x^2)``: what is left of a change after the segment."""
        return self._function(lambda s, block: torch.exp(self._exponent(s, block)))

    @property
    def propagation_minus_one(self):
        """The same minus 1."""
        return self._function(lambda s, block: torch.expm1(self._exponent(s, block)))

    @property
    def integration(self):
        """``(1 - exp(-x - c x^2)) / s``, which is ``h`` at s = 0 and about ``1 / (s + 1/h)``."""
        return self._function(self._integrate, solves=True)

    def _function(self, function, solves=False):
        return SpectralFunction(function, self.shift, 1.0 / self.h if self.h else float("inf"), solves)

    def integrated_and_propagated(self, vectors, *, propagate):
        """``F v``, and ``S v`` unless ``propagate`` is false, of ``v`` and in parameters' coordinates."""
        encoded = self._to_eigenbasis(vectors)
        phis = [self.integration, self.propagation_minus_one][: 2 if propagate else 1]
        scaled, *changes = (self.curvature.decode(part) for part in self.curvature.scale_all(phis, encoded))
        integrated = [v * root for v, root in zip(scaled, self._roots())]
        return integrated, self._propagated(vectors, *changes) if propagate else None

    def _to_eigenbasis(self, vectors):
        """In the metric's eigencoordinates."""
        return self.curvature.encode([v * root for v, root in zip(vectors, self._roots())])

    def _propagated(self, vectors, changes):
        """``S v`` in parameter coordinates, by what changes in those of the metric."""
        propagated = []
        for v, change, root, shift in zip(vectors, changes, self._roots(), self.shift):
            still = root == 0  # no gradient reached it: only decay beside the step does
            change = change / torch.where(still, 1.0, root)
            propagated.append(torch.where(still, v * float(np.exp(-self.h * shift)), v + change))
        return propagated

    def _roots(self):
        """``P^(1/2)`` of every block as a tensor."""
        if self.roots is None:
            return [torch.tensor(p**0.5, dtype=self.dtype, device=self.device) for p in self.metric]
        return [root if p == 1 else root * p**0.5 for p, root in zip(self.metric, self.roots)]

    @property
    def dtype(self):
        return next(iter(self.states[0].parameters.values())).dtype

    @property
    def device(self):
        return next(iter(self.states[0].parameters.values())).device

    def quantiles(self):
        """Of ``h (sigma + rho)`` over all directions."""
        spectrum = self.curvature.spectrum()
        return quantiles(self.h * (v.flatten() + self.shift[i]) for i, v in enumerate(spectrum))


@dataclass
class DiagonalSegment:
    """A segment as the authors of SOURCE walk one of an adaptive optimizer ([1]_, page 36).

    ``S = exp(-h (P diag(H) + rho))`` element by element, ``F = (H + damping)^-1 (1 - S)``, where ``rates`` are the
    exponents, of parameters' shapes, ``curvature`` is that of H in no metric, and ``damping`` is that of influence
    functions, which an inverse cannot do without.

    References
    ----------
    .. [1] Bae, Lin, Lorraine, Grosse (2024), arXiv:2405.12186.
    """

    states: list
    weights: np.ndarray
    curvature: object
    rates: list
    damping: list
    credited: np.ndarray
    n_rows: int

    def integrated_and_propagated(self, vectors, *, propagate):
        """``F v``, and ``S v`` unless ``propagate`` is false, of ``v`` and in parameters' coordinates."""
        lost = [-torch.expm1(-rate) * v for rate, v in zip(self.rates, vectors)]  # (1 - S) v
        integrated = self.curvature.apply(Inverse(self.damping), lost)
        return integrated, [v - change for v, change in zip(vectors, lost)] if propagate else None

    def quantiles(self):
        """Of the exponents."""
        return quantiles(rate.double().cpu().flatten() for rate in self.rates)


def quantiles(parts):
    """What users see of a spectrum."""
    values = np.concatenate([part.numpy() for part in parts])
    return {q: float(v) for q, v in zip(_QUANTILES, np.quantile(values, _QUANTILES))}


def relative_rates(rates):
    """The largest rate ``h``, and every rate relative to it, positive."""
    h = max(rates)
    if h == 0:  # a segment in which nothing was learned: no row scores there, and nothing is lost on the way
        return 0.0, [1.0 for _ in rates]
    return h, [max(rate / h, _METRIC_FLOOR) for rate in rates]


def mean_state(states, weights):
    """FAST-SOURCE's network: floating values averaged, counters taken from the last checkpoint."""

    def mean(dicts):
        out = {}
        for name, last in dicts[-1].items():
            if last.is_floating_point():
                out[name] = sum(d[name] * float(w) for d, w in zip(dicts, weights))
            else:
                out[name] = last
        return out

    digest = "mean:" + ",".join(f"{s.digest}*{float(w):.17g}" for s, w in zip(states, weights))
    return State(states[-1].step, mean([s.parameters for s in states]), mean([s.buffers for s in states]), digest)
