"""SOURCE: segments of training, each solved in closed form (Bae et al. 2024)."""

from __future__ import annotations

from numbers import Integral
from os import PathLike

import numpy as np

from ..base import GradientAttribution, Term
from ..curvature import CURVATURES, meeting_place
from ..trajectory import Trajectory, TrajectoryRecorder, split_segments
from ..utils._compat import Interval, StrOptions
from ._optimizer import require_rates, require_sgd, stage_position, warn_of_unequal_steps
from ._segment import FittedSegment, SegmentSummary, mean_state, relative_rates
from ._statistics import cached_curvature


class SourceAttribution(GradientAttribution):
    """Training-data attribution by segmented approximate unrolled differentiation (SOURCE).

    Training is split into segments; in each, the effect of a row on the weights is the closed-form solution of gradient
    flow on a quadratic with the segment's averaged curvature, and the segments are chained. Nothing has to have
    converged, and there is no damping to tune.

    Parameters
    ----------
    net : skorch.NeuralNet or FrozenEstimator of one, optional
        The network. Frozen: used as it is. Bare: a clone is trained on the data of ``fit``. None: given to ``fit``.
    n_segments : int, default=3
        Segments per training stage. Each needs at least one recorded checkpoint of its own.
    curvature : {"ekfac", "kfac", "diagonal", "identity", "exact"}, default="ekfac"
        How the Gauss-Newton matrix is represented. ``"exact"`` is for small problems.
    fisher : {"auto", "exact", "sampled", "empirical"}, default="auto"
        Which gradients it is an average of: exact columns of the Gauss-Newton root, targets sampled from the model, or
        the true targets. ``"auto"``: exact for at most 16 outputs per row, else sampled.
    averaging : {"statistics", "parameters"}, default="statistics"
        Average the statistics of a segment's checkpoints, or use one network at their mean weights (FAST-SOURCE).
    quadrature : {"trapezoid", "right"}, default="trapezoid"
        Weights of a segment's checkpoints: the trapezoid rule with the segment's start, or those after it, equally.
    measurement : {"auto", "log_odds", "prediction", "neg_loss"} or callable, default="auto"
        What is attributed; its unit is the unit of the scores. ``"auto"``: log-odds of the predicted or given class for
        classifiers, the output for regressors. A callable maps ``(output, target)`` to one number per row, in torch.
    output : int, optional
        Which output ``"prediction"`` means, where there are several.
    layers : str or list of str, optional
        Names of layers or parameters to attribute to; None: every trainable parameter.
    trajectory : Trajectory or path, optional
        Instead of the one that a :class:`~sklearn_source.TrajectoryRecorder` left in the net.
    batch_size : int, optional
        Training rows per forward pass; None: chosen by memory. Scores do not depend on it.
    n_samples : int, default=1
        Draws per row for ``fisher="sampled"``.
    cache_size : int, default=1024
        Megabytes for keeping per-row statistics between the two passes of EK-FAC.
    random_state : int, RandomState instance or None, default=None
        Seeds sampled Fisher draws, and training where ``fit`` trains. None: fresh entropy.
    memory : str, path or joblib.Memory, optional
        Cache for curvature statistics, reused across estimators that differ in ``n_segments``.
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
    learning rate, ``S = exp(-h (H + rho))``, ``F = (1 - S) / (H + rho)`` and

        tau[q, m] = -(1/N) sum_l < F_l S_{l+1} ... S_L grad f_q(theta_T), mean_c grad l_m(theta_c) >

    ([1]_ Eq. 16-24, with the sign that a row which raised f_q scores positive). The score is a derivative in the weight
    of a row: the effect of removing the row differs from it at second order.

    Cost. ``fit``: for each checkpoint one forward pass and one backward pass per Fisher column over the training rows
    (again where the cache is too small), and two eigendecompositions per layer and segment. ``transform``: one forward
    and backward pass per checkpoint, and one product n_query x n_train x n_parameters per segment. Memory: n_segments
    vectors of all parameters per query, in chunks of queries.

    References
    ----------
    .. [1] Bae, Lin, Lorraine, Grosse (2024), "Training Data Attribution via Approximate Unrolled Differentiation",
       arXiv:2405.12186.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from skorch import NeuralNetRegressor
    >>> from sklearn_source import SourceAttribution, TrajectoryRecorder
    >>> from sklearn_source.datasets import MLP
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(64, 3)).astype("float32")
    >>> y = X[:, :1] - X[:, 1:2]
    >>> net = NeuralNetRegressor(MLP, module__hidden=(8,), max_epochs=5, train_split=None, verbose=0,
    ...                          callbacks=[TrajectoryRecorder()]).fit(X, y)
    >>> SourceAttribution(n_segments=2).fit(net, X, y).transform(X[:4]).shape
    (4, 64)
    """

    _parameter_constraints = {
        **GradientAttribution._parameter_constraints,
        "n_segments": [Interval(Integral, 1, None, closed="left")],
        "curvature": [StrOptions(set(CURVATURES))],
        "fisher": [StrOptions({"auto", "exact", "sampled", "empirical"})],
        "averaging": [StrOptions({"statistics", "parameters"})],
        "quadrature": [StrOptions({"trapezoid", "right"})],
        "trajectory": [None, str, PathLike, Trajectory],
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "cache_size": [Interval(Integral, 0, None, closed="left")],
        "memory": "no_validation",
    }
    has_unit = True
    _needs_trajectory = True

    def __init__(
        self,
        net=None,
        *,
        n_segments=3,
        curvature="ekfac",
        fisher="auto",
        averaging="statistics",
        quadrature="trapezoid",
        measurement="auto",
        output=None,
        layers=None,
        trajectory=None,
        batch_size=None,
        n_samples=1,
        cache_size=1024,
        random_state=None,
        memory=None,
        verbose=0,
    ):
        self.net = net
        self.n_segments = n_segments
        self.curvature = curvature
        self.fisher = fisher
        self.averaging = averaging
        self.quadrature = quadrature
        self.measurement = measurement
        self.output = output
        self.layers = layers
        self.trajectory = trajectory
        self.batch_size = batch_size
        self.n_samples = n_samples
        self.cache_size = cache_size
        self.random_state = random_state
        self.memory = memory
        self.verbose = verbose

    def _recorder(self):
        return TrajectoryRecorder(n_checkpoints=max(6, 2 * self.n_segments))

    def _treatment(self):
        """Weight and bias share a block only where the optimizer treated them alike in every segment."""
        self._split = split_segments(self.trajectory_, self.n_segments, self.quadrature)
        signature = {}
        for segment in self._split:
            rates = self.trajectory_.integrated_learning_rate(segment.start, segment.end)
            decays = self.trajectory_.mean_weight_decay(segment.start, segment.end)
            for name, rate in rates.items():
                signature[name] = (*signature.get(name, ()), rate, decays[name])
        return signature

    def _fit_gradients(self):
        require_sgd(self.trajectory_, "SourceAttribution")
        if self.trajectory is None:
            warn_of_unequal_steps(self.net_, self._credited)
        self._states = {}
        self._fitted, self.segments_ = [], []
        for segment in self._split:
            fitted, summary = self._fit_segment(segment)
            self._fitted.append(fitted)
            self.segments_.append(summary)

    def _fit_segment(self, segment):
        trajectory, engine = self.trajectory_, self._engine
        rates = trajectory.integrated_learning_rate(segment.start, segment.end)
        decays = trajectory.mean_weight_decay(segment.start, segment.end)
        names = [block.parameters[0] for block in engine.blocks]
        require_rates(rates, engine.names, segment.stage)
        h, metric = relative_rates([rates[name] for name in names])
        states, weights = self._segment_states(segment)
        index = self._credited[stage_position(trajectory, segment.stage)]
        stream = self._fisher_stream(states, weights, index)
        curvature = cached_curvature(self.curvature, stream, self.memory, self._identified).in_metric(metric)
        shift = [decays[name] * p for name, p in zip(names, metric)]
        fitted = FittedSegment(states, weights, curvature, h, metric, shift, self._only(index), len(index))
        summary = SegmentSummary(
            segment.stage,
            segment.start,
            segment.end,
            tuple(c.step for c in segment.checkpoints),
            np.asarray(segment.weights),
            {name: rates[name] for name in engine.names},
            {name: decays[name] for name in engine.names},
            fitted.quantiles(),
        )
        return fitted, summary

    def _segment_states(self, segment):
        states = []
        for checkpoint in segment.checkpoints:
            key = (checkpoint.stage, checkpoint.step, checkpoint.digest)
            if key not in self._states:
                self._states[key] = self._state(checkpoint)
            states.append(self._states[key])
        if self.averaging == "statistics":
            return states, np.asarray(segment.weights)
        return [mean_state(states, segment.weights)], np.ones(1)

    def _copies_per_query(self):
        return self.n_segments * len(self.trajectory_.stages) + 1

    def _terms(self, queries):
        """The walk back from the trained weights: score a segment with F, pass it with S, score the one before."""
        terms = []
        encoded = previous = None
        for segment in reversed(self._fitted):
            curvature = segment.curvature
            if previous is None:
                encoded = queries.encoded(self._final, curvature.encode)
            else:
                encoded = previous.curvature.change(curvature, encoded)
            encoded = [v * p**0.5 for v, p in zip(encoded, segment.metric)]
            scored = curvature.scale(segment.integrate, encoded)
            factors = [-(p**0.5) / segment.n_rows for p in segment.metric]
            scored = [v.mul_(f) for v, f in zip(scored, factors)]
            values, bases = meeting_place(
                curvature, scored, self._probe, n_rows=queries.n_met, n_checkpoints=len(segment.states)
            )
            terms.append(Term(segment.states, segment.weights, values, bases, segment.credited))
            if segment is not self._fitted[0]:
                encoded = curvature.scale(segment.propagate, encoded)
                encoded = [v / p**0.5 for v, p in zip(encoded, segment.metric)]
            previous = segment
        return terms
