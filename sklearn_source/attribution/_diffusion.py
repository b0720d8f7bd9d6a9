"""Diffusion-TracIn and Diffusion-ReTrac: gradients at the timesteps that the rows drew (Xie et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Integral
from os import PathLike
from typing import Literal

import numpy as np
import torch
from skorch import NeuralNet

from ..base import Term
from ..diffusion import DenoisingLoss
from ..trajectory import Trajectory
from ..utils._compat import FrozenEstimator, Interval, StrOptions
from ._tracin import TracIn


class DiffusionTracIn(TracIn):
    """TracIn for diffusion models: at each checkpoint a row counts with the timestep and noise it drew in that epoch.

    Read more in the :ref:`User Guide <diffusion_tracin>`.

    Parameters
    ----------
    net : skorch.NeuralNet or FrozenEstimator of one, optional
        The network. Frozen: used as it is. Bare: a clone is trained on the data of ``fit``. None: given to ``fit``.
    rows : {"drawn", "grid"}, default="drawn"
        The gradients of training rows: at what each drew in the epoch of the checkpoint, or a mean over the grid.
    n_timesteps : int, optional
        Of the grid on which queries are measured, evenly spaced. None: 10, or those of ``measurement``.
    n_noise : int, optional
        Noises at each timestep of the grid. None: 1, or those of ``measurement``.
    quadrature : {"trapezoid", "right"}, default="trapezoid"
        Which steps a checkpoint stands for: half of those on either side of it, or those since the one before.
    measurement : {"auto", "log_odds", "prediction", "neg_loss"}, DenoisingLoss or callable, default="auto"
        What is attributed; its unit is the unit of the scores. ``"auto"``: minus the loss on the grid. A
        :class:`~sklearn_source.diffusion.DenoisingLoss` brings its own grid.
    output : int or tuple of int, optional
        Which output ``"prediction"`` means, where there are several; a tuple where a row's outputs have several axes.
    layers : str or list of str, optional
        Names of layers or parameters to attribute to; None: every trainable parameter.
    trajectory : Trajectory or path, optional
        Instead of the one that a :class:`~sklearn_source.TrajectoryRecorder` left in the net.
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

    See Also
    --------
    DiffusionReTrac : Without the rows that drew timesteps of large gradients in every list.

    Notes
    -----
    ``tau[q, m] = -(1/N) sum_c h_c < grad f_q(theta_c), grad l_m(theta_c; t_m^c, eps_m^c) >``: the unit of the
    measurement, positive where having the row raised it. A net whose loss draws nothing gives the scores of
    :class:`~sklearn_source.TracIn`; of other losses that draw, the draws take the place of timesteps and noises. Cost
    of ``transform``: per checkpoint one forward and backward pass of the queries at every point of the grid and of the
    training rows (``"grid"``: at every point), and one product n_query x n_train x n_parameters.

    References
    ----------
    .. [1] Xie, Li, Bai, Hsieh (2024), "Data Attribution for Diffusion Models: Timestep-induced Bias in Influence
       Estimation", TMLR, arXiv:2401.09031, Eq. 5.
    """

    _parameter_constraints = {
        **{name: kinds for name, kinds in TracIn._parameter_constraints.items() if name != "n_draws"},
        "rows": [StrOptions({"drawn", "grid"})],
        "n_timesteps": [None, Interval(Integral, 1, None, closed="left")],
        "n_noise": [None, Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        net: NeuralNet | FrozenEstimator | None = None,
        *,
        rows: Literal["drawn", "grid"] = "drawn",
        n_timesteps: int | None = None,
        n_noise: int | None = None,
        quadrature: Literal["trapezoid", "right"] = "trapezoid",
        measurement: str | Callable[..., torch.Tensor] = "auto",
        output: int | tuple[int, ...] | None = None,
        layers: str | Sequence[str] | None = None,
        trajectory: Trajectory | str | PathLike[str] | None = None,
        batch_size: int | None = None,
        tol: float | None = None,
        precision: Literal["bf16"] | None = None,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ):
        self.net = net
        self.rows = rows
        self.n_timesteps = n_timesteps
        self.n_noise = n_noise
        self.quadrature = quadrature
        self.measurement = measurement
        self.output = output
        self.layers = layers
        self.trajectory = trajectory
        self.batch_size = batch_size
        self.tol = tol
        self.precision = precision
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def _measured_draws(self, measure):
        own = super()._measured_draws(measure)
        asked = {"n_timesteps": self.n_timesteps, "n_noise": self.n_noise}
        asked = {name: value for name, value in asked.items() if value is not None}
        if not asked:
            return own
        if own is None:
            raise ValueError(
                f"{', '.join(f'{name}={value}' for name, value in asked.items())} is of a grid of timesteps, but the "
                f"loss of this {type(self.net_).__name__} draws nothing: leave it out"
            )
        if measure is not None and measure.draws is not None:
            raise ValueError(
                f"{' and '.join(asked)} would be those of the grid that measurement={self.measurement!r} brings: set "
                "them there"
            )
        return DenoisingLoss(**asked).draws(self.net_)

    def _training_draws(self):
        if self.rows == "grid":
            return self._measured_draws(self.measurement if isinstance(self.measurement, DenoisingLoss) else None)
        return super()._training_draws()[:1] if self._network.draws_examples else None

    def _state(self, checkpoint):
        state = super()._state(checkpoint)
        if self.rows == "grid" or not self._network.draws_examples:
            return state
        if checkpoint.outside is None:
            raise ValueError(
                "rows='drawn' needs to know the epoch of every checkpoint, which this trajectory does not hold: record "
                "the training with a TrajectoryRecorder, or use rows='grid'"
            )
        return replace(state, draws=(self._network.training_draw(checkpoint.outside),))


class DiffusionReTrac(DiffusionTracIn):
    """Diffusion-TracIn with every gradient divided by its norm, which depends on the timestep more than on the row.

    Read more in the :ref:`User Guide <diffusion_tracin>`.

    Parameters
    ----------
    net : skorch.NeuralNet or FrozenEstimator of one, optional
        The network. Frozen: used as it is. Bare: a clone is trained on the data of ``fit``. None: given to ``fit``.
    rows : {"drawn", "grid"}, default="drawn"
        The gradients of training rows: at what each drew in the epoch of the checkpoint, or a mean over the grid.
    n_timesteps : int, optional
        Of the grid on which queries are measured, evenly spaced. None: 10, or those of ``measurement``.
    n_noise : int, optional
        Noises at each timestep of the grid. None: 1, or those of ``measurement``.
    quadrature : {"trapezoid", "right"}, default="trapezoid"
        Which steps a checkpoint stands for: half of those on either side of it, or those since the one before.
    measurement : {"auto", "log_odds", "prediction", "neg_loss"}, DenoisingLoss or callable, default="auto"
        What is attributed. ``"auto"``: minus the loss on the grid. A :class:`~sklearn_source.diffusion.DenoisingLoss`
        brings its own grid.
    output : int or tuple of int, optional
        Which output ``"prediction"`` means, where there are several; a tuple where a row's outputs have several axes.
    layers : str or list of str, optional
        Names of layers or parameters to attribute to; None: every trainable parameter.
    trajectory : Trajectory or path, optional
        Instead of the one that a :class:`~sklearn_source.TrajectoryRecorder` left in the net.
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

    See Also
    --------
    DiffusionTracIn : In the unit of the measurement.

    Notes
    -----
    ``tau[q, m] = -(1/N) sum_c h_c < mean_t u(grad f_q(theta_c; t)), u(grad l_m(theta_c; t_m^c, eps_m^c)) >`` with
    ``u(v) = v / |v|``; a query's gradient at a timestep is a mean over noises before it is divided. With
    ``rows="grid"`` those of the rows are divided at every timestep too. No unit, only an order; positive: having the
    row raised the measurement. Cost: that of :class:`DiffusionTracIn`, and for ``rows="grid"`` a product per timestep.

    References
    ----------
    .. [1] Xie, Li, Bai, Hsieh (2024), "Data Attribution for Diffusion Models: Timestep-induced Bias in Influence
       Estimation", TMLR, arXiv:2401.09031, Eq. 9.
    """

    has_unit = False

    def _bytes_per_query(self):
        return (len(self._checkpoint_terms) + 2) * self._gradients.n_parameters * self._network.dtype.itemsize

    def _terms(self, queries):
        terms = []
        for state, factors, credited in self._checkpoint_terms:
            values = [
                (factor * vector).reshape(len(queries), -1)
                for factor, vector in zip(factors, _mean_direction(queries, state))
            ]
            draws = self._rows.draws if state.draws is None else state.draws
            parts = _by_timestep(draws)
            values = queries.within_tol([value / len(parts) for value in values])
            for part in parts:
                at = state if len(parts) == 1 else replace(state, draws=part)
                terms.append(Term([at], np.ones(1), values, None, credited, cosine=True))
        return terms


def _mean_direction(queries, state):
    """Gradients of queries divided by their norms, a mean over timesteps: one (n_query, groups, out, in) per block."""
    parts, total = _by_timestep(queries.draws), None
    for draws in parts:
        vectors = queries.with_draws(draws).encoded(state, lambda blocks: [gradient.matrix() for gradient in blocks])
        norm = sum(vector.flatten(1).square().sum(1) for vector in vectors).sqrt()
        inverse = 1 / (norm.clamp_min(torch.finfo(norm.dtype).tiny) * len(parts))
        vectors = [vector * inverse[:, None, None, None] for vector in vectors]
        total = vectors if total is None else [sum_ + vector for sum_, vector in zip(total, vectors)]
    return total


def _by_timestep(draws):
    """Draws apart by what they leave to no chance; [None] where nothing is drawn."""
    if draws is None:
        return [None]
    parts = {}
    for draw in draws:
        parts.setdefault(draw.given, []).append(draw)
    return [tuple(part) for part in parts.values()]
