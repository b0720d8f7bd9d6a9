"""TracIn: gradients met at every checkpoint, without curvature (Pruthi et al. 2020)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Literal

import numpy as np
import torch
from skorch import NeuralNet

from ..base import GradientAttribution, Term
from ..gradients.algebra import met_bytes
from ..trajectory import Trajectory, segment_flow, segment_rates
from ..utils._compat import FrozenEstimator, StrOptions
from ._training_assumptions import stage_position, warn_of_unequal_steps


class TracIn(GradientAttribution):
    """Inner products of query and training gradients, summed over the checkpoints of training.

    Read more in the :ref:`User Guide <tracin>`.

    Parameters
    ----------
    net : skorch.NeuralNet or FrozenEstimator of one, optional
        The network. Frozen: used as it is. Bare: a clone is trained on the data of ``fit``. None: given to ``fit``.
    quadrature : {"trapezoid", "right"}, default="trapezoid"
        Which steps a checkpoint stands for: half of those on either side of it, or those since the one before.
    measurement : {"auto", "log_odds", "prediction", "neg_loss"} or callable, default="auto"
        What is attributed; its unit is the unit of the scores. ``"auto"``: log-odds of the predicted or given class for
        classifiers, the output for regressors. A callable maps ``(output, target)`` to one number per row, in torch.
    output : int or tuple of int, optional
        Which output ``"prediction"`` means, where there are several; a tuple where a row's outputs have several axes.
    layers : str or list of str, optional
        Names of layers or parameters to attribute to; None: every trainable parameter.
    trajectory : Trajectory or path, optional
        Instead of the one that a :class:`~sklearn_source.TrajectoryRecorder` left in the net.
    n_draws : int, optional
        Where the loss draws (:class:`~.stochastic.StochasticLossMixin`): the draws that a training row's gradient is a
        mean over; None: 16.
    batch_size : int, optional
        Training rows per forward pass; None: chosen by memory. Scores do not depend on it.
    tol : float, optional
        Error that a query's gradient, with every factor of the formula, may have in every layer, relative to its norm
        there: it then meets the rows as few outer products where that is less work, and scores are off by at most
        ``tol`` times the product of norms (:ref:`User Guide <low_rank>`). None: exact, up to rounding.
    precision : {"bf16"}, optional
        Of the products in which whole vectors of queries meet the rows: ``"bf16"``, of numbers rounded to eight bits,
        with scores off by at most .012 times the product of norms, is faster where processor or GPU has instructions
        for it (:ref:`User Guide <bf16>`). None: the network's own.
    n_jobs : int, optional
        Workers that share the training rows in ``transform``, as joblib counts them: None is 1 except in a
        ``joblib.parallel_config`` context, -1 all processors (:ref:`User Guide <jobs>`). Scores depend on it by
        rounding alone.
    random_state : int, RandomState instance or None, default=None
        Seeds training where ``fit`` trains. None: fresh entropy.
    verbose : int, default=0
        Show progress.

    Attributes
    ----------
    trajectory_ : Trajectory
        The training that was attributed.
    net_ : skorch.NeuralNet
        The network.
    n_train_ : int
        Number of training rows, the columns of :meth:`transform`.
    n_features_in_ : int
        Columns of X, where X is a matrix.
    feature_names_in_ : ndarray of str
        Columns' names, where X is a data frame.

    Notes
    -----
    ``tau[q, m] = -(1/N) sum_c h_c < grad f_q(theta_c), grad l_m(theta_c) >`` with ``h_c`` the integrated learning rate
    of the steps that checkpoint c stands for: the unit of the measurement, positive where having the row raised it.
    For an adaptive optimizer the gradients meet through its preconditioner at that checkpoint. What the later training
    did to a row's effect is left out. Cost of ``transform``: one forward and backward pass and
    one product n_query x n_train x n_parameters per checkpoint.

    References
    ----------
    .. [1] Pruthi, Liu, Kale, Sundararajan (2020), "Estimating Training Data Influence by Tracing Gradient Descent",
       NeurIPS, Eq. 2.
    """

    _parameter_constraints = {
        **GradientAttribution._parameter_constraints,
        "quadrature": [StrOptions({"trapezoid", "right"})],
        "trajectory": [None, str, PathLike, Trajectory],
    }
    has_unit = True
    _needs_trajectory = True

    def __init__(
        self,
        net: NeuralNet | FrozenEstimator | None = None,
        *,
        quadrature: Literal["trapezoid", "right"] = "trapezoid",
        measurement: str | Callable[..., torch.Tensor] = "auto",
        output: int | tuple[int, ...] | None = None,
        layers: str | Sequence[str] | None = None,
        trajectory: Trajectory | str | PathLike[str] | None = None,
        n_draws: int | None = None,
        batch_size: int | None = None,
        tol: float | None = None,
        precision: Literal["bf16"] | None = None,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ):
        self.net = net
        self.quadrature = quadrature
        self.measurement = measurement
        self.output = output
        self.layers = layers
        self.trajectory = trajectory
        self.n_draws = n_draws
        self.batch_size = batch_size
        self.tol = tol
        self.precision = precision
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def _treatment(self):
        """A weight and a bias with different rates meet separately."""
        self._weights = _checkpoint_rates(self.trajectory_, self.quadrature)
        signature = {}
        for _, _, rates in self._weights:
            for name, rate in rates.items():
                signature[name] = (*signature.get(name, ()), rate)
        return signature

    def _fit_gradients(self):
        trajectory = self.trajectory_
        if self.trajectory is None:
            warn_of_unequal_steps(self.net_, trajectory=trajectory)
        self._checkpoint_terms = []
        steps = [checkpoint.step for _, checkpoint, _ in self._weights]
        for number, (stage, checkpoint, rates) in enumerate(self._weights):
            position = stage_position(trajectory, stage)
            index, recorded = self._credited[position], trajectory.stages[position]
            # A checkpoint stands for the steps up to its neighbours in the stage.
            neighbours = steps[max(number - 1, 0)], steps[min(number + 1, len(steps) - 1)]
            around = max(neighbours[0], recorded.start), min(neighbours[1], recorded.end)
            factors = [-rates[block.parameters[0]] / len(index) for block in self._gradients.blocks]
            here = segment_flow(trajectory, checkpoint.step, checkpoint.step, position, [checkpoint], [1.0])
            if here.preconditioner is not None:
                factors = [f * P for f, P in zip(factors, self._gradients.matrices(here.preconditioner))]
            self._checkpoint_terms.append(
                (
                    self._state(checkpoint),
                    factors,
                    self._credit_of(index, self._row_weights(position, *around)),
                )
            )

    def _state(self, checkpoint):
        """Where the gradients of a checkpoint are taken."""
        return self._gradients.state(checkpoint)

    def _bytes_per_query(self):
        return sum(met_bytes(self._gradients.probe, factors) for _, factors, _ in self._checkpoint_terms)

    def _terms(self, queries):
        terms = []
        for state, factors, credited in self._checkpoint_terms:
            values = queries.within_tol(queries.to_meet(state, factors))
            terms.append(Term([state], np.ones(1), values, None, credited))
        return terms


def _checkpoint_rates(trajectory, quadrature):
    """(stage, checkpoint, integrated learning rate per parameter of the steps it stands for), zero ones left out."""
    result = []
    for stage in trajectory.stages:
        checkpoints = trajectory.stage_checkpoints(stage.index)
        if quadrature == "trapezoid" and checkpoints[0].step != stage.start:
            raise ValueError(
                f"quadrature='trapezoid' needs the weights at the start of stage {stage.index} (step {stage.start}), "
                "which were not recorded: use quadrature='right'"
            )
        shares = [{} for _ in checkpoints]
        bounds = [c.step for c in checkpoints]
        if bounds[0] != stage.start:
            bounds, shares = [stage.start, *bounds], [{}, *shares]
        for left in range(len(bounds) - 1):
            rates = segment_rates(trajectory, bounds[left], bounds[left + 1], stage_position(trajectory, stage.index))
            for name, rate in rates.items():
                if quadrature == "trapezoid":
                    shares[left][name] = shares[left].get(name, 0.0) + rate / 2
                    shares[left + 1][name] = shares[left + 1].get(name, 0.0) + rate / 2
                else:
                    shares[left + 1][name] = shares[left + 1].get(name, 0.0) + rate
        shares = shares[-len(checkpoints) :]
        result += [(stage.index, c, share) for c, share in zip(checkpoints, shares) if share]
    return result
