"""Influence functions: a Newton step at the trained weights (Koh & Liang 2017; with EK-FAC, Grosse et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Literal

import numpy as np
import torch
from skorch import NeuralNet

from ..curvature import Curvature
from ..rows import rows_of_stages
from ..trajectory import TrajectoryRecorder, verify_stages
from ..utils._compat import FrozenEstimator, Interval, StrOptions
from ..utils._warnings import warn
from ._influence_damping import regularization
from ._newton import NewtonAttribution


class InfluenceFunctions(NewtonAttribution):
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
        **NewtonAttribution._parameter_constraints,
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
        n_draws: int | None = None,
        batch_size: int | None = None,
        tol: float | None = None,
        precision: Literal["bf16"] | None = None,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ):
        self.net = net
        self.curvature = curvature
        self.damping = damping
        self.measurement = measurement
        self.output = output
        self.layers = layers
        self.n_draws = n_draws
        self.batch_size = batch_size
        self.tol = tol
        self.precision = precision
        self.n_jobs = n_jobs
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
        network, self._index = self._network, rows_of_stages(self._credited)
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
        self._step = self._newton_step(self._gradients.trained, self._regularization, self._index)
        del self._regularization  # preconditioners as large as the network
        self.damping_ = {block.name: d for block, d in zip(self._gradients.blocks, self._step.system.dampings)}

    def _bytes_per_query(self):
        return super()._bytes_per_query() + self._bytes_for_functions([self._step.curvature])

    def _changes(self, asked):
        step = self._step
        predict = self._refit(step.state, self._index, step.system.scale(self._gradients.blocks), asked)
        return self._summed_changes(asked) if predict is None else predict

    def _terms(self, queries):
        return [self._step.term(queries, self._gradients.probe)]


def _uneven(draws):
    """Whether rows made up shares of the batches that differ by more than those of a smaller last batch."""
    return float(draws[1].max()) > 1.5 * max(float(draws[1].mean()), 1e-300) or float(draws[1].min()) == 0.0
