"""A segment of training as SOURCE walks it, and what users see of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from ..base import State

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
# Rates are compared with the largest one; a parameter that did not move in a segment still needs a positive metric.
_METRIC_FLOOR = 1e-24


@dataclass(frozen=True)
class SegmentSummary:
    """What SOURCE used of one segment of the training.

    Attributes
    ----------
    stage : int
    start, end : int
        The segment holds the optimizer steps ``start + 1 .. end``.
    checkpoints : tuple of int
        The steps of its checkpoints.
    weights : ndarray
        Their quadrature weights, summing to one.
    integrated_learning_rate : dict of str to float
        Per parameter, the sum over the steps of ``lr (1 - dampening) / (1 - momentum)``.
    weight_decay : dict of str to float
        Per parameter, the mean weight decay.
    h_sigma_quantiles : dict of float to float
        Quantiles over all curvature directions of integrated learning rate times (eigenvalue + weight decay). Nearly
        all above about 10: the segment acts like an influence function averaged over it. All far below 1: like TracIn.
    """

    stage: int
    start: int
    end: int
    checkpoints: tuple
    weights: np.ndarray
    integrated_learning_rate: dict = field(repr=False)
    weight_decay: dict = field(repr=False)
    h_sigma_quantiles: dict


@dataclass
class FittedSegment:
    """A segment ready to be walked.

    ``curvature`` is that of ``P^(1/2) H P^(1/2)`` with ``P = metric`` the blocks' rates relative to the largest, ``h``;
    ``shift`` is what weight decay adds to its eigenvalues, per block.
    """

    states: list
    weights: np.ndarray
    curvature: object
    h: float
    metric: list
    shift: list
    credited: np.ndarray
    n_rows: int

    def propagate(self, values, block):
        """``exp(-h (sigma + rho))``: what is left of a change after the segment."""
        return torch.exp(-self.h * (values + self.shift[block]))

    def integrate(self, values, block):
        """``(1 - exp(-h s)) / s`` with s = sigma + rho, which is ``h`` at s = 0."""
        s = values + self.shift[block]
        small = s * self.h < 1e-12
        return torch.where(small, self.h, -torch.expm1(-self.h * s) / torch.where(small, 1.0, s))

    def quantiles(self):
        """Of ``h (sigma + rho)`` over all directions."""
        spectrum = self.curvature.spectrum()
        values = [self.h * (v.flatten() + self.shift[i]) for i, v in enumerate(spectrum)]
        values = np.concatenate([v.numpy() for v in values])
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
