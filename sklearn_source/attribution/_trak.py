"""TRAK: kernel regression on randomly projected gradients (Park et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral, Real
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet

from ..base import PROJECTIONS, FeatureAttribution, RowGradients, make_projection
from ..gradients.algebra import even_chunks
from ..loss import along_measurement
from ..network import Network
from ..trajectory import TrajectoryRecorder
from ..utils._compat import FrozenEstimator, Interval, StrOptions
from ._ridge import Ridge, leave_one_out_regularization, working_response
from ._trak_states import chosen_states

_N_ALONG = 3  # columns beside a checkpoint's features while they are collected: value, slope, curvature


class TRAK(FeatureAttribution):
    """Tracing with the randomly-projected after kernel: regression on projected gradients of the measurement.

    Read more in the :ref:`User Guide <trak>`.

    Parameters
    ----------
    net : skorch.NeuralNet or FrozenEstimator of one, optional
        The network. Frozen: used as it is. Bare: a clone is trained on the data of ``fit``. None: given to ``fit``.
    projection : {"sjlt", "rademacher", "kronecker", "mask"}, default="sjlt"
        How gradients are made narrow. ``"sjlt"``: every coordinate goes with a random sign into one of the components.
        ``"rademacher"``: inner products with random signs, ``n_components`` times the work. ``"kronecker"``: the inputs
        and the output gradients of every layer apart (LoGra), which forms no gradient. ``"mask"``: some coordinates.
        All keep inner products, in the mean over the random numbers.
    n_components : int or None, default=2048
        Numbers that are kept of every gradient; at most so many for ``"kronecker"``. None, or no fewer than there are
        parameters: no projection.
    regularization : float or "auto", default="auto"
        Lambda, added to every eigenvalue of ``Phi^T Phi``. ``"auto"``: by leave-one-out, see the notes.
    block_size : int, default=2048
        Components whose kernel is inverted together; where there are more, scores are the mean over blocks.
    n_checkpoints : int or None, default=1
        How many of the recorded checkpoints the scores are a mean over, nearly equally spaced, the trained network
        among them; None: all but the initial one. More than 1 needs a :class:`~sklearn_source.TrajectoryRecorder`.
    measurement : {"auto", "log_odds", "prediction", "neg_loss"} or callable, default="auto"
        What is attributed, of queries and of training rows. ``"auto"``: log-odds of the predicted or given class for
        classifiers, the output for regressors. A callable maps ``(output, target)`` to one number per row, in torch.
    output : int or tuple of int, optional
        Which output ``"prediction"`` means, where there are several; a tuple where a row's outputs have several axes.
    layers : str or list of str, optional
        Names of layers or parameters to attribute to; None: every trainable parameter.
    n_draws : int, optional
        Where the loss draws (:class:`~.stochastic.StochasticLossMixin`): the draws that a training row's gradient is a
        mean over; None: 16.
    batch_size : int, optional
        Rows per forward pass; None: chosen by memory. Scores do not depend on it.
    n_jobs : int, optional
        Workers that share the training rows in ``fit``, as joblib counts them: None is 1 except in a
        ``joblib.parallel_config`` context, -1 all processors (:ref:`User Guide <jobs>`). Scores depend on it by
        rounding alone.
    random_state : int, RandomState instance or None, default=None
        Seeds the projection, and training where ``fit`` trains. None: fresh entropy.
    verbose : int, default=0
        Show progress.

    Attributes
    ----------
    regularization_ : ndarray of shape (n_checkpoints, n_blocks)
        Lambda of every checkpoint and block.
    residuals_ : ndarray of shape (n_train,)
        Minus the derivative of every training row's loss by its measurement, a mean over checkpoints: ``1 - p`` for
        log-odds under cross-entropy.
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
    ``tau = mean_c [phi_c(q)^T (Phi_c^T Phi_c + lambda_c)^-1 Phi_c^T] diag(mean_c Q_c)`` with ``phi`` the projected
    gradient of the measurement, of training rows with their own targets in ``Phi`` (N, k), and ``Q`` their residuals
    [1]_. No unit, only an order; positive: having the row raised the measurement.

    ``regularization="auto"``: at a checkpoint the loss of row m is, to second order in its measurement, ``r/2 (z_m -
    f)^2`` with ``z_m = f_m + Q_m / r``, r the mean over rows of its second derivative (whose variation TRAK drops).
    Fitting ``phi_m . w`` to the z_m by ridge regression is the linearised training. Lambda is where that, trained on
    the other rows alone, comes closest to what the network says of the row left out::

        sum_m (f_m - phi_m . w_-m)^2,   phi_m . w_-m = ((H z)_m - H_mm z_m) / (1 - H_mm)

    with ``H = Phi (Phi^T Phi + lambda)^-1 Phi^T``.

    For squared error z are the targets. Where losses have no curvature, r is the mean square of Q.

    The loss of a row with several outputs or tokens is no function of the measurement alone: its derivative is then the
    least-squares one, of log-odds a weighted mean over the tokens; of one output among several what the others do to
    the shared weights is left out. ``measurement="neg_loss"`` takes the loss whole, with Q = 1.

    Cost of ``fit``: per checkpoint one forward and backward pass over the training rows, the projection (per row one
    addition per parameter for ``"sjlt"``, ``n_components`` for ``"rademacher"``, about ``n_components`` over all for
    ``"mask"``, the square root of a layer's share of them per input and output for ``"kronecker"``), and per block an
    eigendecomposition of min(N, block)^3. Memory: n_train x n_components x n_checkpoints numbers, which stay, and some
    copies of one block in float64. ``transform``: the same pass over the queries, and their product with what was kept.

    References
    ----------
    .. [1] Park, Georgiev, Ilyas, Leclerc, Madry (2023), "TRAK: Attributing Model Behavior at Scale", ICML, Eq. 17.
    .. [2] Choe et al. (2024), "What is Your Data Worth to GPT?", arXiv:2405.13954.
    """

    _parameter_constraints = {
        **FeatureAttribution._parameter_constraints,
        "projection": [StrOptions(set(PROJECTIONS))],
        "n_components": [None, Interval(Integral, 1, None, closed="left")],
        "regularization": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "block_size": [Interval(Integral, 1, None, closed="left")],
        "n_checkpoints": [None, Interval(Integral, 1, None, closed="left")],
        "layers": [None, str, list, tuple],
    }
    fit_depends_on_measurement = True

    def __init__(
        self,
        net: NeuralNet | FrozenEstimator | None = None,
        *,
        projection: Literal["sjlt", "rademacher", "kronecker", "mask"] = "sjlt",
        n_components: int | None = 2048,
        regularization: float | Literal["auto"] = "auto",
        block_size: int = 2048,
        n_checkpoints: int | None = 1,
        measurement: str | Callable[..., torch.Tensor] = "auto",
        output: int | tuple[int, ...] | None = None,
        layers: str | Sequence[str] | None = None,
        n_draws: int | None = None,
        batch_size: int | None = None,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ):
        self.net = net
        self.projection = projection
        self.n_components = n_components
        self.regularization = regularization
        self.block_size = block_size
        self.n_checkpoints = n_checkpoints
        self.measurement = measurement
        self.output = output
        self.layers = layers
        self.n_draws = n_draws
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @property
    def residuals_(self) -> NDArray:
        """Minus the derivative of every training row's loss by its measurement, (n_train,)."""
        if not hasattr(self, "_training_features"):
            raise AttributeError("residuals_ is there after fit")
        return self._training_features[:, -1].cpu().numpy()

    def with_residuals(self, residuals: ArrayLike) -> TRAK:
        """The same fitted method with other residuals Q.

        Over several networks Park et al. take the mean of the first factor and of Q apart: the mean of the scores of
        methods that all have the mean of their ``residuals_``.

        Parameters
        ----------
        residuals : array-like of shape (n_train,)
            In the order of the rows given to ``fit``.

        Returns
        -------
        method : TRAK
            Shares everything else with this one, which stays as it is.

        Raises
        ------
        ValueError
            If the shape is another.
        """
        check_is_fitted(self)
        values = torch.as_tensor(np.asarray(residuals)).to(self._training_features)
        if values.shape != (self.n_train_,):
            raise ValueError(
                f"expected residuals of shape ({self.n_train_},), one per training row, got {tuple(values.shape)}"
            )
        other = object.__new__(type(self))
        other.__dict__.update(vars(self))
        other._training_features = torch.cat([self._training_features[:, :-1], values[:, None]], dim=1)
        return other

    def residuals_of(self, net: NeuralNet) -> NDArray:
        """Residuals Q of the training rows as another network has them, by forward passes alone.

        Parameters
        ----------
        net : skorch.NeuralNet
            The one that the method was fitted on with something changed but its weights: some units left out, say.

        Returns
        -------
        residuals : ndarray of shape (n_train,)
            A mean over checkpoints; for :meth:`with_residuals`.
        """
        check_is_fitted(self)
        other, slopes = Network.from_net(net), []
        other.compare_modes(self._rows.batch(slice(0, 4))[0])
        with self._exclusive(), torch.no_grad():
            for state in self._states:
                self._gradients.load(state)
                other.load(state.parameters, state.buffers, state.outside)
                slopes.append(self._in_batches(partial(self._slopes, other), self._rows, np.arange(self.n_train_)))
        return -torch.stack(slopes).double().mean(0).to(slopes[0].dtype).cpu().numpy()

    def _slopes(self, network, rows, index):
        x, y = rows.batch(index)
        return self._along(network.forward(x), y, x).slope

    def _recorder(self):
        return None if self.n_checkpoints == 1 else TrajectoryRecorder(self.n_checkpoints or 6)

    @property
    def _feature_batch(self):
        return self._gradients.batch_size

    def _begin_features(self):
        self._gradients = RowGradients(self._network, self._rows, layers=self.layers, batch_size=self.batch_size)
        self._states = chosen_states(self._gradients, self.n_checkpoints, self._recorded_trajectory)
        shapes = [block.shape for block in self._gradients.blocks]
        self._projections = [
            make_projection(self.projection, shapes, self.n_components, (self._seed, number))
            for number in range(len(self._states))
        ]

    def _features(self, rows, index, measure):
        x, y = rows.batch(index)
        target = None
        if len(self._states) > 1:  # what is measured at the trained weights (the class predicted there) at all of them
            self._gradients.load(self._gradients.trained)
            with torch.no_grad():
                target = measure.target(self._network.forward(x), y, x)
        return torch.cat(
            [
                project(self._gradients.of_measurement(x, y, measure, state, target))
                for state, project in zip(self._states, self._projections)
            ],
            dim=1,
        )

    def _training_row_features(self, rows, index):
        x, y = rows.batch(index)
        engine, parts = self._gradients.engine, []
        with engine.attached():
            for state, project in zip(self._states, self._projections):
                self._gradients.load(state)
                capture = engine.capture(x)
                along = self._along(capture.output, y, x)
                parts.append(project(capture.pull(along.cotangent)))
                parts.append(torch.stack([along.values, along.slope, along.curvature], dim=1))
        return torch.cat(parts, dim=1)

    def _along(self, output, y, x):
        try:
            return along_measurement(self._network.row_loss, self._measure, output, y, x)
        except ValueError as error:
            raise ValueError(
                f"TRAK measures the training rows with their own targets, and here it cannot ({error}): use another "
                'measurement, "neg_loss" say'
            ) from error

    def _fit_features(self, features):
        widths = [project.width for project in self._projections]
        parts = features.split([n for width in widths for n in (width, _N_ALONG)], dim=1)
        n_columns, scores = 0, features.new_empty(len(features), sum(widths) + 1)
        slopes, chosen = [], []
        for Phi, along in zip(parts[::2], parts[1::2]):
            values, slope, curvature = along.double().T
            blocks, found = even_chunks(Phi.shape[1], self.block_size), []
            for block in blocks:
                out = scores[:, n_columns : n_columns + block.stop - block.start]
                n_columns += out.shape[1]
                share = 1 / (len(blocks) * len(widths))
                found.append(self._smoother(Phi[:, block], values, slope, curvature, out, share))
            chosen.append(found)
            slopes.append(slope)
        self.regularization_ = np.array(chosen)
        scores[:, -1] = -torch.stack(slopes).mean(0)
        return scores

    def _smoother(self, features, values, slope, curvature, out, share):
        """Write ``Phi (Phi^T Phi + lambda)^-1`` of one block and checkpoint, times its share; give lambda."""
        ridge = Ridge(features)
        regularization = self.regularization
        if regularization == "auto":
            regularization = leave_one_out_regularization(ridge, working_response(values, slope, curvature), values)
        ridge.smoother(regularization, out, share)
        return regularization

    def _compare(self, queries, training):
        return queries @ training[:, :-1].T * training[:, -1]

    def _compare_rows(self, queries, training):
        return (queries * training[:, :-1]).sum(1) * training[:, -1]
