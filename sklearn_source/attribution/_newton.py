"""Newton steps at recorded weights: what influence functions take at the last ones, snapshots at several."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..base import CurvatureAttribution, State, Term
from ..curvature import FittedCurvature, Inverse, Metric, decode_queries_or_rotate_rows, resolve_curvature
from ..loss import Bernoulli, Categorical
from ..network import outputs_of
from ._influence_damping import System
from ._source_walk import times

# Grosse et al. (2023), Section 3.2.1: a tenth of the mean eigenvalue of the layer.
AUTO_DAMPING = 0.1
_N_LOOKED_AT = 256  # rows whose classes are looked at for whether the network doubts any


@dataclass
class NewtonStep:
    """``-(1/N) (H + rho + lambda)^-1 grad f`` at some weights, which then meets the rows' gradients there.

    Attributes
    ----------
    state : State
        The weights.
    system : System
        What is added to H, and the metric.
    curvature : FittedCurvature
        H at these weights, in the metric.
    n_rows : int
        N.
    credited : ndarray (n_train,) or None
        The rows that score.
    row_weights : ndarray (N,) or None
        How often they were drawn, mean one; None for alike.
    """

    state: State
    system: System
    curvature: FittedCurvature
    n_rows: int
    credited: Any
    row_weights: Any = None

    def term(self, queries, probe, share=1.0):
        """The :class:`Term` of some :class:`Queries`, times ``share``."""
        curvature, roots, relative = (
            self.curvature.within(queries.coupling_tol),
            self.system.roots,
            self.system.relative,
        )
        unit = -share / self.n_rows
        if roots is None and curvature.couples_blocks:
            found = curvature.combination(Inverse(self.system.shifts), queries.gradients(self.state), queries.n_met)
            if found is not None:
                values, mixture = found
                return Term([self.state], np.ones(1), values, None, self.credited, mixture=mixture * unit)
        if roots is None:
            encoded = times(queries.encoded(self.state, curvature.encode), relative, 0.5)
        else:
            encoded = queries.encoded(
                self.state, lambda g: curvature.encode([b.matrix() * r for b, r in zip(g, roots)])
            )
        encoded = [v.mul_(unit) for v in curvature.scale_(Inverse(self.system.shifts), encoded)]
        if roots is not None:  # a metric of its own for every element: the vectors are parameters' gradients
            values = [(v * r).reshape(v.shape[0], -1) for v, r in zip(curvature.decode(encoded), roots)]
            return Term([self.state], np.ones(1), queries.within_tol(values), None, self.credited)
        encoded = times(encoded, relative, 0.5)
        values, bases = decode_queries_or_rotate_rows(curvature, encoded, probe, n_rows=queries.n_met, tol=queries.tol)
        return Term([self.state], np.ones(1), values, bases, self.credited)


class NewtonAttribution(CurvatureAttribution):
    """Base of the methods that solve with the curvature at single checkpoints: has ``curvature`` and ``damping``."""

    def _newton_step(self, state, regularization, index, row_weights=None):
        """The :class:`NewtonStep` at some weights of the rows ``index``, with what a training adds to H there."""
        blocks = self._gradients.blocks
        system = regularization.system(self._gradients)

        def curvature_in(system):
            metric = None if system.roots is None else Metric(system.roots, system.penalty)
            kind = resolve_curvature(self.curvature)
            fitted = self._fit_curvature(kind, [state], np.ones(1), index, metric, row_weights)
            return fitted if system.relative is None else fitted.in_metric(system.relative)

        curvature = curvature_in(system)
        if system.dampings is None:
            dampings = self._dampings(system, curvature, index)
            shifts = [decay + damping for decay, damping in zip(system.shifts, dampings)]
            system = replace(system, shifts=shifts, dampings=dampings)
        if curvature.couples_blocks and len(set(system.shifts)) > 1:  # one function of one matrix
            system = system.elementwise(blocks, next(iter(state.parameters.values())))
            curvature = curvature_in(system)
        if not any(system.shifts) and not any(curvature.mean_eigenvalue(i) for i in range(len(blocks))):
            raise ValueError(
                "the curvature is zero in every direction (a piecewise linear criterion, as quantile and hinge losses "
                "are, or probabilities of 0 and 1?), so that a Newton step has no length: pass damping > 0 or "
                'curvature=EKFAC(fisher="empirical"), or use TracIn, which needs no curvature'
            )
        return NewtonStep(state, system, curvature, len(index), self._credit_of(index, row_weights), row_weights)

    def _dampings(self, system, curvature, index):
        """Per block, where the training does not say."""
        n_blocks = len(self._gradients.blocks)
        if not isinstance(self.damping, str):
            return [float(self.damping)] * n_blocks
        self._require_some_doubt(index)
        # Of the rows' curvature alone: weight decay is no measure of it.
        decays = system.mean_penalty(curvature.couples_blocks)
        return [AUTO_DAMPING * (curvature.mean_eigenvalue(i) - decays[i]) for i in range(n_blocks)]

    def _require_some_doubt(self, index):
        """Refuse a damping measured by a curvature that is nothing but rounding: the network doubts no class."""
        network = self._network
        if not isinstance(network.predictive, (Bernoulli, Categorical)):
            return
        some = np.unique(np.linspace(0, len(index) - 1, _N_LOOKED_AT).astype(np.int64))
        x, _ = self._rows.batch(index[some])
        output = network.first(outputs_of(network.forward, x))
        if isinstance(network.predictive, Bernoulli):
            yes = network.predictive.probability(output.double())
            doubt = torch.minimum(yes, 1 - yes)
        else:
            classes = network.predictive.probabilities(output.double())
            doubt = classes.sum(network.predictive.axis) - classes.amax(network.predictive.axis)
        if float(doubt.mean()) < torch.finfo(output.dtype).eps:
            raise ValueError(
                "the network is so sure of its classes that the curvature is zero but for rounding in "
                f"{str(output.dtype).removeprefix('torch.')}, and so would be a damping measured by it: pass "
                "damping > 0, or use TracIn, which needs no curvature"
            )
