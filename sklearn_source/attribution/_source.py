"""SOURCE: segments of training, each solved in closed form (Bae et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Integral
from os import PathLike
from typing import Literal

import numpy as np
import torch
from skorch import NeuralNet

from ..base import CurvatureAttribution
from ..curvature import Curvature, Diagonal, Metric, resolve_curvature
from ..trajectory import Trajectory, TrajectoryRecorder, segment_flow, snapshots, split_segments, until
from ..utils._compat import FrozenEstimator, Interval, StrOptions
from ..utils._warnings import warn
from ._influence_damping import regularization
from ._newton import AUTO_DAMPING
from ._source_segment import DiagonalSegment, FittedSegment, SegmentSummary, mean_state, relative_rates
from ._source_walk import walk_in_eigencoordinates, walk_in_parameters
from ._training_assumptions import stage_position, warn_of_overshooting, warn_of_unequal_steps


class SourceAttribution(CurvatureAttribution):
    """Training-data attribution by segmented approximate unrolled differentiation (SOURCE).

    Training is split into segments; in each, the effect of a row on the weights is the closed-form solution of gradient
    flow on a quadratic with the segment's averaged curvature, and the segments are chained. Nothing has to have
    converged, and there is no damping to tune.

    Read more in the :ref:`User Guide <source>`.

    Parameters
    ----------
    net : skorch.NeuralNet or FrozenEstimator of one, optional
        The network. Frozen: used as it is. Bare: a clone is trained on the data of ``fit``. None: given to ``fit``.
    n_segments : int or "auto", default="auto"
        Segments per training stage. Each needs at least one recorded checkpoint of its own. ``"auto"``: three, or as
        many as the stage has recorded checkpoints after its start, if fewer.
    curvature : {"ekfac", "kfac", "diagonal", "identity", "exact"} or Curvature, default="ekfac"
        How the Gauss-Newton matrix is represented and estimated. A name stands for :class:`~.curvature.EKFAC`,
        :class:`~.curvature.KFAC`, :class:`~.curvature.Diagonal`, :class:`~.curvature.Identity` or
        :class:`~.curvature.ExactGaussNewton` (for small problems) at its defaults; an object has parameters of its own.
    averaging : {"statistics", "parameters"}, default="statistics"
        Average the statistics of a segment's checkpoints, or use one network at their mean weights (FAST-SOURCE).
    quadrature : {"trapezoid", "right"}, default="trapezoid"
        Weights of a segment's checkpoints: the trapezoid rule with the segment's start, or those after it, equally.
    adam : {"metric", "paper"}, default="metric"
        How the segments of an adaptive optimizer are solved: in the metric of its preconditioner, or as the authors of
        SOURCE do ([1]_, page 36), with the diagonal of H in the exponential and a damped inverse of H.
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
        Workers that share the training rows in ``fit`` and ``transform``, as joblib counts them: None is 1 except in a
        ``joblib.parallel_config`` context, -1 all processors (:ref:`User Guide <jobs>`). Scores depend on it by
        rounding alone.
    random_state : int, RandomState instance or None, default=None
        Seeds sampled Fisher draws, and training where ``fit`` trains. None: fresh entropy.
    verbose : int, default=0
        Show progress.

    Attributes
    ----------
    segments_ : list of SegmentSummary
        Steps, checkpoints, integrated learning rates and quantiles of h sigma per segment.
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

    See Also
    --------
    InfluenceFunctions : The same curvature at the final weights alone, for converged networks.
    TracIn : No curvature, all checkpoints.

    Notes
    -----
    With ``sigma`` the eigenvalues of a segment's curvature H, ``rho`` the weight decay and ``h`` the integrated
    learning rate, ``x = h (H + rho)``, ``S = exp(-x - c x^2)``, ``F = (1 - S) / (H + rho)`` and

        tau[q, m] = -(1/N) sum_l < F_l S_{l+1} ... S_L grad f_q(theta_T), mean_c grad l_m(theta_c) >

    ([1]_ Eq. 16-24, with the sign that a row which raised f_q scores positive). ``c`` is what steps of finite size and
    momentum add to the flow (:meth:`Trajectory.second_order`; 0 in [1]_ and for adaptive optimizers), and ``h`` how far
    a pull at each step has moved the weights by the end of training. The score is a derivative in the weight of a row:
    the effect of removing the row differs from it at second order.

    A step of an adaptive optimizer is preconditioned by ``P = 1 / (sqrt(v) + eps)``, ``v`` the recorded second moments
    averaged over the segment's checkpoints. With ``M = P^(1/2) H P^(1/2)``, plus ``rho P`` for decay that enters the
    gradient and ``rho`` for decay beside the step (AdamW), ``S = P^(-1/2) exp(-h M) P^(1/2)`` and
    ``F = P^(1/2) [(1 - exp(-h M)) / M] P^(1/2)``; EK-FAC is fitted from the scaled per-row gradients. The
    :ref:`User Guide <adaptive>` lists the optimizers covered; ``fit`` raises ValueError for any other, or where the
    state was not recorded.

    Layers are coupled as ``curvature.coupling`` says (:class:`~.curvature.EKFAC`), with ``adam="paper"`` too; without,
    scores are several times too large on networks of several layers.

    Cost. ``fit``: for each checkpoint one forward pass and one backward pass per Fisher column over the training rows
    (again where the cache is too small), and two eigendecompositions per layer and segment. ``transform``: one forward
    and backward pass per checkpoint, and one product n_query x n_train x n_parameters per segment. Memory:
    as many vectors of all parameters per query as there are segments, and two, in chunks of queries that take 2 GiB
    (:func:`~sklearn_source.config_context` sets it). After an adaptive
    optimizer ``fit`` forms and turns the matrix of every row's gradient: up to (in + out) multiplications per entry and
    Fisher column.

    References
    ----------
    .. [1] Bae, Lin, Lorraine, Grosse (2024), "Training Data Attribution via Approximate Unrolled Differentiation",
       arXiv:2405.12186.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from skorch import NeuralNetRegressor
    >>> from sklearn_source import SourceAttribution, TrajectoryRecorder
    >>> from sklearn_source.modules import MLP
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(64, 3)).astype("float32")
    >>> y = X[:, :1] - X[:, 1:2]
    >>> net = NeuralNetRegressor(MLP, module__hidden=(8,), max_epochs=5, train_split=None, verbose=0,
    ...                          callbacks=[TrajectoryRecorder()]).fit(X, y)
    >>> SourceAttribution(n_segments=2).fit(net, X, y).transform(X[:4]).shape
    (4, 64)
    """

    _parameter_constraints = {
        **CurvatureAttribution._parameter_constraints,
        "n_segments": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "adam": [StrOptions({"metric", "paper"})],
        "averaging": [StrOptions({"statistics", "parameters"})],
        "quadrature": [StrOptions({"trapezoid", "right"})],
        "trajectory": [None, str, PathLike, Trajectory],
    }
    has_unit = True
    _needs_trajectory = True

    def __init__(
        self,
        net: NeuralNet | FrozenEstimator | None = None,
        *,
        n_segments: int | Literal["auto"] = "auto",
        curvature: str | Curvature = "ekfac",
        averaging: Literal["statistics", "parameters"] = "statistics",
        quadrature: Literal["trapezoid", "right"] = "trapezoid",
        adam: Literal["metric", "paper"] = "metric",
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
        self.n_segments = n_segments
        self.curvature = curvature
        self.averaging = averaging
        self.quadrature = quadrature
        self.adam = adam
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

    def _recorder(self):
        return TrajectoryRecorder(n_checkpoints=6 if self.n_segments == "auto" else max(6, 2 * self.n_segments))

    def _treatment(self):
        """Weight and bias share a block only where the optimizer treated them alike in every segment."""
        trajectory = self.trajectory_
        self._split = split_segments(trajectory, self.n_segments, self.quadrature)
        self._flows = [self._flow_of(segment) for segment in self._split]
        signature = {}
        for flow in self._flows:
            for name, rate in flow.rates.items():
                signature[name] = (*signature.get(name, ()), rate, flow.coupled[name], flow.decoupled[name])
        return signature

    def _flow_of(self, segment):
        """The flow of a segment; a penalty in the loss acts as a weight decay that entered the gradient."""
        trajectory, checkpoints, weights = self.trajectory_, segment.checkpoints, segment.weights
        position = stage_position(trajectory, segment.stage)
        flow = segment_flow(trajectory, segment.start, segment.end, position, checkpoints, weights)
        values = ((c.parameters, c.buffers) for c in checkpoints)
        penalty = self._penalty_curvature(self._credited[position], values, weights)
        if not any(penalty.values()):
            return flow
        return replace(flow, coupled={n: decay + penalty.get(n, 0.0) for n, decay in flow.coupled.items()})

    def _fit_gradients(self):
        if self.trajectory is None:
            warn_of_unequal_steps(self.net_, trajectory=self.trajectory_)
        self._states = {}
        self._fitted, self.segments_ = [], []
        for segment, flow in zip(self._split, self._flows):
            fitted = self._fit_segment(segment, flow)
            self._fitted.append(fitted)
            names = self._gradients.engine.names
            decays = {name: flow.coupled[name] + flow.decoupled[name] for name in names}
            summary = SegmentSummary(
                segment.stage,
                segment.start,
                segment.end,
                tuple(c.step for c in segment.checkpoints),
                np.asarray(segment.weights),
                flow.optimizer,
                {name: flow.rates[name] for name in names},
                decays,
                fitted.quantiles(),
            )
            self.segments_.append(summary)
        warn_of_overshooting(self.trajectory_, self._largest_curvatures())
        del self._flows  # preconditioners as large as the network, which the fitted segments have taken in

    def _largest_curvatures(self):
        """For each segment of an optimizer without preconditioner its stage, and each block's largest eigenvalue."""
        names = [block.parameters[0] for block in self._gradients.engine.blocks]
        result = []
        for segment, fitted in zip(self._split, self._fitted):
            if isinstance(fitted, FittedSegment) and fitted.roots is None:
                spectrum = zip(names, fitted.curvature.spectrum(), fitted.metric)
                largest = [(name, float(values.max()) / p) for name, values, p in spectrum if values.numel()]
                result.append((stage_position(self.trajectory_, segment.stage), largest))
        return result

    def _fit_segment(self, segment, flow):
        trajectory, engine = self.trajectory_, self._gradients.engine
        kind = resolve_curvature(self.curvature)
        names = [block.parameters[0] for block in engine.blocks]
        h, relative = relative_rates([flow.rates[name] for name in names])
        states, weights = self._segment_states(segment)
        position = stage_position(trajectory, segment.stage)
        index, row_weights = self._credited[position], self._row_weights(position, segment.start, segment.end)
        credit = self._credit_of(index, row_weights)
        second = [flow.second[name] for name in names]
        if flow.preconditioner is None:
            shift = [flow.coupled[name] * p for name, p in zip(names, relative)]
            curvature = self._fit_curvature(kind, states, weights, index, row_weights=row_weights).in_metric(relative)
            if curvature.couples_blocks:  # one function of one matrix
                second = [float(np.average(second, weights=relative))] * len(names)
            return FittedSegment(states, weights, curvature, h, relative, shift, credit, len(index), second)
        preconditioner = self._gradients.matrices(flow.preconditioner)
        coupled, decoupled = ([decays[name] for name in names] for decays in (flow.coupled, flow.decoupled))
        if self.adam == "paper":
            alike = Diagonal(fisher=kind.fisher, n_samples=kind.n_samples, memory=kind.memory, coupling=None)
            diagonal = self._fit_curvature(alike, states, weights, index, row_weights=row_weights).eigenvalues
            rates = [
                h * p * ((values + c) * P + d)
                for p, values, P, c, d in zip(relative, diagonal, preconditioner, coupled, decoupled)
            ]
            curvature = self._fit_curvature(kind, states, weights, index, row_weights=row_weights)
            damping = [AUTO_DAMPING * curvature.mean_eigenvalue(i) for i in range(len(names))]
            return DiagonalSegment(states, weights, curvature, rates, damping, credit, len(index))
        roots = [P.sqrt() for P in preconditioner]
        penalty = [c * P if c else None for c, P in zip(coupled, preconditioner)]
        curvature = self._fit_curvature(kind, states, weights, index, Metric(roots, penalty), row_weights)
        shift = [d * p for d, p in zip(decoupled, relative)]
        return FittedSegment(
            states,
            weights,
            curvature.in_metric(relative),
            h,
            relative,
            shift,
            credit,
            len(index),
            second,
            roots,
        )

    def _segment_states(self, segment):
        states = []
        for checkpoint in segment.checkpoints:
            key = (checkpoint.stage, checkpoint.step, checkpoint.digest)
            if key not in self._states:
                self._states[key] = self._gradients.state(checkpoint)
            states.append(self._states[key])
        if self.averaging == "statistics":
            return states, np.asarray(segment.weights)
        return [mean_state(states, segment.weights)], np.ones(1)

    def _bytes_per_query(self):
        kept = (len(self._split) + 2) * super()._bytes_per_query()
        return kept + self._bytes_for_functions([segment.curvature for segment in self._fitted])

    def _changes(self, asked):
        """At every checkpoint, with the damping of the training up to it: the mean of their predictions."""
        trajectory = self.trajectory_
        if len(trajectory.stages) > 1:
            warn(
                "the training was in several stages, for which there is no solution with other rows: "
                "predicted is the sum of scores"
            )
            return super()._changes(asked)
        index, (stage,), names = self._credited[0], trajectory.stages, list(self._network.parameters())
        row_weights = self._row_weights(0, stage.start, stage.end)
        predictions = []
        for checkpoint in snapshots(trajectory):
            values = checkpoint.parameters, checkpoint.buffers
            penalty = self._penalty_curvature(index, [values], np.ones(1))
            held = regularization(self.net_, until(trajectory, checkpoint), names, from_training=True)
            held = held.with_penalty(penalty)
            if any(held.rates.values()):
                scale = held.system(self._gradients).scale(self._gradients.blocks)
                predictions.append(self._refit(self._gradients.state(checkpoint), index, scale, asked, row_weights))
                if predictions[-1] is None:
                    return self._summed_changes(asked)
        if not predictions:  # nothing was learned
            return super()._changes(asked)
        return lambda queries: sum(predict(queries) for predict in predictions) / len(predictions)

    def _terms(self, queries):
        if all(isinstance(segment, FittedSegment) and segment.roots is None for segment in self._fitted):
            return walk_in_eigencoordinates(self._fitted, queries, self._gradients.trained, self._gradients.probe)
        return walk_in_parameters(self._fitted, queries, self._gradients.trained)
