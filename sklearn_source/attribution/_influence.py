"""Influence functions: a Newton step at the trained weights (Koh & Liang 2017; with EK-FAC, Grosse et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Real
from typing import Literal

import numpy as np
import torch
from skorch import NeuralNet

from ..base import CurvatureAttribution, Term
from ..curvature import (
    Curvature,
    Inverse,
    Metric,
    decode_queries_or_rotate_rows,
    resolve_curvature,
)
from ..trajectory import TrajectoryRecorder, verify_stages
from ..utils._compat import FrozenEstimator, Interval, StrOptions
from ..utils._warnings import warn
from ._influence_damping import regularization
from ._source_walk import times

# Grosse et al. (2023), Section 3.2.1: a tenth of the mean eigenvalue of the layer.
AUTO_DAMPING = 0.1


class InfluenceFunctions(CurvatureAttribution):
    """Influence functions with a damped Gauss-Newton matrix at the trained weights.

    Read more in the :ref:`User Guide <influence_functions>`.

    Parameters
    ----------
    net : skorch.NeuralNet or FrozenEstimator of one, optional
        The network. Frozen: used as it is. Bare: a clone is trained on the data of ``fit``. None: given to ``fit``.
    curvature : {"ekfac", "kfac", "diagonal", "identity", "exact"} or Curvature, default="ekfac"
        How the Gauss-Newton matrix is represented and estimated. A name stands for :class:`~.curvature.EKFAC`,
        :class:`~.curvature.KFAC`, :class:`~.curvature.Diagonal`, :class:`~.curvature.Identity` or
        :class:`~.curvature.ExactGaussNewton` (for small problems) at its defaults; an object has parameters of its own.
    damping : float or {"auto", "trajectory", "mean_eigenvalue"}, default="auto"
        Added to every eigenvalue of H, which weight decay belongs to. ``"trajectory"``: one over the integrated
        learning rate of the recorded training, in the metric of its optimizer. ``"mean_eigenvalue"``: 0.1 times the
        mean eigenvalue of each layer (of the whole matrix for ``curvature="exact"``). ``"auto"``: ``"trajectory"``
        where one is recorded, of an optimizer that SOURCE covers, else ``"mean_eigenvalue"``.
    measurement : {"auto", "log_odds", "prediction", "neg_loss"} or callable, default="auto"
        What is attributed; its unit is the unit of the scores. ``"auto"``: log-odds of the predicted or given class for
        classifiers, the output for regressors. A callable maps ``(output, target)`` to one number per row, in torch.
    output : int or tuple of int, optional
        Which output ``"prediction"`` means, where there are several; a tuple where a row's outputs have several axes.
    layers : str or list of str, optional
        Names of layers or parameters to attribute to; None: every trainable parameter.
    batch_size : int, optional
        Training rows per forward pass; None: chosen by memory. Scores do not depend on it.
    random_state : int, RandomState instance or None, default=None
        Seeds sampled Fisher draws, and training where ``fit`` trains. None: fresh entropy.
    verbose : int, default=0
        Show progress.

    Attributes
    ----------
    damping_ : dict of str to float
        Per block of parameters; that of a recorded training is in the metric of its optimizer.
    net_ : skorch.NeuralNet
        The network.
    n_train_ : int
        Number of training rows, the columns of :meth:`transform`.
    n_features_in_ : int
        Columns of X, where X is a matrix.
    feature_names_in_ : ndarray of str
        Columns' names, where X is a data frame.

    See Also
    --------
    SourceAttribution : Does not assume that training converged, and has no damping to choose.

    Notes
    -----
    ``tau[q, m] = -(1/N) < (H + rho + lambda)^-1 grad f_q, grad l_m >`` at the trained weights: the unit of the
    measurement, positive where having the row raised it. ``rho`` is the weight decay, recorded or that of the net's
    optimizer; ``rho / P`` for decay beside the step (AdamW), ``P`` the preconditioner at the last step, taken as given.
    In the metric of an adaptive optimizer (``damping="trajectory"``) the solve is that of ``P^(1/2) H P^(1/2)``, as for
    SOURCE, and costs what it costs there. Cost: ``fit`` one forward pass and one backward pass per Fisher column
    (``"exact"`` has one column per output); ``transform`` one forward and backward pass and one product
    n_query x n_train x n_parameters.

    References
    ----------
    .. [1] Koh, Liang (2017), "Understanding Black-box Predictions via Influence Functions", ICML, Eq. 2.
    .. [2] Grosse et al. (2023), "Studying Large Language Model Generalization with Influence Functions",
       arXiv:2308.03296.
    """

    _parameter_constraints = {
        **CurvatureAttribution._parameter_constraints,
        "damping": [StrOptions({"auto", "trajectory", "mean_eigenvalue"}), Interval(Real, 0, None, closed="left")],
    }
    has_unit = True

    def __init__(
        self,
        net: NeuralNet | FrozenEstimator | None = None,
        *,
        curvature: str | Curvature = "ekfac",
        damping: float | Literal["auto", "trajectory", "mean_eigenvalue"] = "auto",
        measurement: str | Callable[..., torch.Tensor] = "auto",
        output: int | tuple[int, ...] | None = None,
        layers: str | Sequence[str] | None = None,
        batch_size: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ):
        self.net = net
        self.curvature = curvature
        self.damping = damping
        self.measurement = measurement
        self.output = output
        self.layers = layers
        self.batch_size = batch_size
        self.random_state = random_state
        self.verbose = verbose

    def _fit_method(self):
        self._trajectory = self._recorded_trajectory()
        if self._trajectory is not None:
            self._read_the_record(self._trajectory)
        super()._fit_method()
        del self._trajectory

    def _read_the_record(self, trajectory):
        """Influence functions take the weights for a minimum of the mean loss: the record may show otherwise."""
        verification = verify_stages(self._network, trajectory.stages, trajectory.observations)
        as_recorded = ("as recorded", "nothing could be verified")
        self._trajectory = trajectory.corrected(verification)
        said = [stage.verdict for stage in verification.stages if stage.verdict not in as_recorded]
        said = [verdict.replace(": taken into account", "") for verdict in said]
        if any(
            stage.draws is not None and _uneven(stage.draws_between(stage.start, stage.end))
            for stage in trajectory.stages
        ):
            said.append("some rows were drawn more often than others, or never (a sampler, drop_last)")
        if said:
            warn(
                "influence functions take the trained weights for a minimum of the mean loss over the rows, but the "
                f"record of the training shows: {'; '.join(said)}"
            )

    def _recorder(self):
        return TrajectoryRecorder() if self.damping == "trajectory" else None

    def _treatment(self):
        """Weight and bias share a block only where decay, a penalty in the loss and the training treat them alike."""
        network, self._index = self._network, np.unique(np.concatenate(self._credited))
        trained = network.parameters(), network.buffers()
        penalty = self._penalty_curvature(self._index, [trained], np.ones(1))
        self._regularization = self._regularization_of(list(trained[0])).with_penalty(penalty)
        return self._regularization.signature()

    def _regularization_of(self, names):
        trajectory = self._trajectory
        if self.damping == "trajectory" and trajectory is None:
            raise ValueError(
                "damping='trajectory' needs the record of the training that the net's weights came from, and there is "
                "none: train with callbacks=[TrajectoryRecorder()], or use damping='mean_eigenvalue'"
            )
        if trajectory is not None and self.damping in ("auto", "trajectory"):
            try:
                return regularization(self.net_, trajectory, names, from_training=True)
            except ValueError:  # an optimizer whose steps have no known rate
                if self.damping == "trajectory":
                    raise
        return regularization(self.net_, trajectory, names, from_training=False)

    def _fit_gradients(self):
        blocks = self._gradients.blocks
        system = self._regularization.system(self._gradients)
        del self._regularization  # preconditioners as large as the network
        self._curvature = self._curvature_in(system)
        if system.dampings is None:
            dampings = self._dampings(system)
            shifts = [decay + damping for decay, damping in zip(system.shifts, dampings)]
            system = replace(system, shifts=shifts, dampings=dampings)
        if self._curvature.couples_blocks and len(set(system.shifts)) > 1:  # one function of one matrix
            system = system.elementwise(blocks, next(iter(self._gradients.trained.parameters.values())))
            self._curvature = self._curvature_in(system)
        self._system = system
        if not any(self._system.shifts) and not any(self._curvature.mean_eigenvalue(i) for i in range(len(blocks))):
            raise ValueError(
                "the curvature is zero in every direction (a piecewise linear criterion, as quantile and hinge losses "
                "are, or probabilities of 0 and 1?), so that a Newton step has no length: pass damping > 0 or "
                'curvature=EKFAC(fisher="empirical"), or use TracIn, which needs no curvature'
            )
        self.damping_ = {block.name: d for block, d in zip(blocks, system.dampings)}
        self._mask = self._credit_of(self._index)

    def _curvature_in(self, system):
        """H of the rows, in the metric of a :class:`System` and with its penalty."""
        metric = None if system.roots is None else Metric(system.roots, system.penalty)
        kind = resolve_curvature(self.curvature)
        fitted = self._fit_curvature(kind, [self._gradients.trained], np.ones(1), self._index, metric)
        return fitted if system.relative is None else fitted.in_metric(system.relative)

    def _dampings(self, system):
        """Per block, where the training does not say."""
        n_blocks = len(self._gradients.blocks)
        if not isinstance(self.damping, str):
            return [float(self.damping)] * n_blocks
        # Of the rows' curvature alone: weight decay is no measure of it.
        decays = system.mean_penalty(self._curvature.couples_blocks)
        return [AUTO_DAMPING * (self._curvature.mean_eigenvalue(i) - decays[i]) for i in range(n_blocks)]

    def _bytes_per_query(self):
        return super()._bytes_per_query() + self._bytes_for_functions([self._curvature])

    def _reweighting(self, weights):
        state = self._gradients.trained
        return self._refit(state, self._index, self._system.scale(self._gradients.blocks), weights)

    def _terms(self, queries):
        curvature, roots, relative = self._curvature, self._system.roots, self._system.relative
        trained, unit = self._gradients.trained, -1.0 / len(self._index)
        if roots is None:
            encoded = times(queries.encoded(trained, curvature.encode), relative, 0.5)
        else:
            encoded = queries.encoded(trained, lambda g: curvature.encode([b.matrix() * r for b, r in zip(g, roots)]))
        encoded = [v.mul_(unit) for v in curvature.scale_(Inverse(self._system.shifts), encoded)]
        if roots is not None:  # a metric of its own for every element: the vectors are parameters' gradients
            values = [(v * r).reshape(v.shape[0], -1) for v, r in zip(curvature.decode(encoded), roots)]
            return [Term([trained], np.ones(1), values, None, self._mask)]
        encoded = times(encoded, relative, 0.5)
        values, bases = decode_queries_or_rotate_rows(curvature, encoded, self._gradients.probe, n_rows=queries.n_met)
        return [Term([trained], np.ones(1), values, bases, self._mask)]


def _uneven(draws):
    """Whether rows made up shares of the batches that differ by more than those of a smaller last batch."""
    return float(draws[1].max()) > 1.5 * max(float(draws[1].mean()), 1e-300) or float(draws[1].min()) == 0.0
