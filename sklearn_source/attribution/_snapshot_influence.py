"""Influence functions averaged over the checkpoints of one training, each damped by the training up to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral, Real
from os import PathLike
from typing import Literal

import numpy as np
import torch
from skorch import NeuralNet

from ..curvature import Curvature
from ..rows import rows_of_stages
from ..trajectory import Trajectory, TrajectoryRecorder, snapshots, until
from ..utils._compat import FrozenEstimator, Interval, StrOptions
from ..utils._warnings import warn
from ._influence_damping import regularization
from ._newton import NewtonAttribution
from ._training_assumptions import stage_position, warn_of_unequal_steps


class SnapshotInfluence(NewtonAttribution):
    """Influence functions averaged over snapshots of one training run.

    Each checkpoint is a network of its own: the query's gradient, the rows' gradients and the curvature are all taken
    there, damped by what the training up to it amounts to. The mean over checkpoints has less of the chance of a single
    one, and costs no training.

    Read more in the :ref:`User Guide <snapshot_influence>`.

    Parameters
    ----------
    net : skorch.NeuralNet or FrozenEstimator of one, optional
        The network. Frozen: used as it is. Bare: a clone is trained on the data of ``fit``. None: given to ``fit``.
    n_snapshots : int, optional
        Checkpoints of the last training stage to average over, nearly equally spaced, the last among them. None: all
        that were recorded.
    curvature : {"ekfac", "kfac", "diagonal", "identity", "exact"} or Curvature, default="ekfac"
        How the Gauss-Newton matrix is represented and estimated. A name stands for :class:`~.curvature.EKFAC`,
        :class:`~.curvature.KFAC`, :class:`~.curvature.Diagonal`, :class:`~.curvature.Identity` or
        :class:`~.curvature.ExactGaussNewton` (for small problems) at its defaults; an object has parameters of its own.
    damping : float or {"trajectory", "mean_eigenvalue"}, default="trajectory"
        Added to every eigenvalue of H, which weight decay belongs to. ``"trajectory"``: one over the integrated
        learning rate of the training up to the checkpoint, in the metric of its optimizer. ``"mean_eigenvalue"``: 0.1
        times the mean eigenvalue of each layer there (of the whole matrix for ``curvature="exact"``).
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
    steps_ : ndarray of int (n_snapshots,)
        Optimizer steps at the checkpoints used.
    damping_ : list of dict of str to float
        Per checkpoint and block of parameters; that of a recorded training is in the metric of its optimizer.
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
    InfluenceFunctions : At the trained weights alone.
    SourceAttribution : The effect of the whole training on the trained weights.

    Notes
    -----
    With ``h_c`` the integrated learning rate up to checkpoint c and ``rho`` the weight decay,

        tau[q, m] = -(1/(C N)) sum_c < (H(theta_c) + rho + 1/h_c)^-1 grad f_q(theta_c), grad l_m(theta_c) >

    in the unit of the measurement, positive where having the row raised it; in the metric of an adaptive optimizer as
    for :class:`InfluenceFunctions`. The class that a classifier's log-odds are of is the one that the trained network
    predicts. After several stages the checkpoints are those of the last one, and N are all rows trained on up to it.

    Cost: C times that of :class:`InfluenceFunctions`, and C fitted curvatures are held.

    References
    ----------
    .. [1] Deng, Li, Zhang, Ma (2024), "Efficient Ensembles Improve Training Data Attribution", arXiv:2405.17293
       (ensembles of networks; snapshots of one run are not among them).
    .. [2] Huang et al. (2017), "Snapshot Ensembles: Train 1, Get M for Free", ICLR.
    """

    _parameter_constraints = {
        **NewtonAttribution._parameter_constraints,
        "n_snapshots": [None, Interval(Integral, 1, None, closed="left")],
        "damping": [StrOptions({"trajectory", "mean_eigenvalue"}), Interval(Real, 0, None, closed="left")],
        "trajectory": [None, str, PathLike, Trajectory],
    }
    has_unit = True
    _needs_trajectory = True

    def __init__(
        self,
        net: NeuralNet | FrozenEstimator | None = None,
        *,
        n_snapshots: int | None = None,
        curvature: str | Curvature = "ekfac",
        damping: float | Literal["trajectory", "mean_eigenvalue"] = "trajectory",
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
        self.n_snapshots = n_snapshots
        self.curvature = curvature
        self.damping = damping
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
        return TrajectoryRecorder(n_checkpoints=self.n_snapshots or 8)

    def _treatment(self):
        """Weight and bias share a block only where every snapshot treats them alike."""
        trajectory, names = self.trajectory_, list(self._network.parameters())
        self._index = rows_of_stages(self._credited)
        self._places, signature = [], {}
        for checkpoint in snapshots(trajectory, self.n_snapshots):
            from_training = self.damping == "trajectory"
            found = regularization(self.net_, until(trajectory, checkpoint), names, from_training=from_training)
            weights = checkpoint.parameters, checkpoint.buffers
            found = found.with_penalty(self._penalty_curvature(self._index, [weights], np.ones(1)))
            self._places.append((checkpoint, found))
            for name, treated in (found.signature() or dict.fromkeys(names)).items():
                signature[name] = (*signature.get(name, ()), treated)
        return signature

    def _fit_gradients(self):
        trajectory, blocks = self.trajectory_, self._gradients.blocks
        if self.trajectory is None:
            warn_of_unequal_steps(self.net_, trajectory=trajectory)
        if len(trajectory.stages) > 1 and any(len(own) < len(self._index) for own in self._credited):
            warn(
                "influence functions take the weights for a minimum of the mean loss over all rows, but this training "
                "was in stages with other rows: rows of an earlier stage come out too large. Use SourceAttribution"
            )
        self._steps = [self._step_at(*place) for place in self._places]
        self.steps_ = np.array([checkpoint.step for checkpoint, _ in self._places])
        del self._places  # preconditioners as large as the network
        self.damping_ = [{block.name: d for block, d in zip(blocks, step.system.dampings)} for step in self._steps]

    def _step_at(self, checkpoint, regularization):
        trajectory, row_weights = self.trajectory_, None
        if len(trajectory.stages) == 1:
            position = stage_position(trajectory, checkpoint.stage)
            row_weights = self._row_weights(position, trajectory.stages[position].start, checkpoint.step)
        return self._newton_step(self._gradients.state(checkpoint), regularization, self._index, row_weights)

    def _bytes_per_query(self):
        kept = (len(self._steps) + 1) * super()._bytes_per_query()
        return kept + self._bytes_for_functions([step.curvature for step in self._steps])

    def _changes(self, asked):
        predictions = [
            self._refit(step.state, self._index, step.system.scale(self._gradients.blocks), asked, step.row_weights)
            for step in self._steps
        ]
        return lambda queries: sum(predict(queries) for predict in predictions) / len(predictions)

    def _terms(self, queries):
        share = 1.0 / len(self._steps)
        return [step.term(queries, self._gradients.probe, share) for step in self._steps]
