"""Similarity of gradients at the trained weights (Charpiat et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from skorch import NeuralNet

from ..base import GradientAttribution, Term
from ..gradients.algebra import met_bytes, unit_vectors
from ..utils._compat import FrozenEstimator, StrOptions


class GradientSimilarity(GradientAttribution):
    """Similarity of a query's gradient and a training row's at the trained weights.

    Read more in the :ref:`User Guide <similarities>`.

    Parameters
    ----------
    net : skorch.NeuralNet or FrozenEstimator of one, optional
        The network. Frozen: used as it is. Bare: a clone is trained on the data of ``fit``. None: given to ``fit``.
    metric : {"cosine", "dot"}, default="cosine"
        Of ``-grad f_q`` and ``grad l_m``.
    measurement : {"auto", "log_odds", "prediction", "neg_loss"} or callable, default="auto"
        What a query's gradient is of. ``"auto"``: log-odds of the predicted or given class for
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
        Workers that share the training rows in ``transform``, as joblib counts them: None is 1 except in a
        ``joblib.parallel_config`` context, -1 all processors (:ref:`User Guide <jobs>`). Scores depend on it by
        rounding alone.
    random_state : int, RandomState instance or None, default=None
        Seeds training where ``fit`` trains. None: fresh entropy.
    verbose : int, default=0
        Show progress.

    Attributes
    ----------
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
    No unit, only an order; positive: following the row's gradient raises the measurement. Cost of ``transform``: one
    forward and backward pass and one product n_query x n_train x n_parameters.

    References
    ----------
    .. [1] Charpiat, Girard, Felardos, Tarabalka (2019), "Input Similarity from the Neural Network Perspective",
       NeurIPS.
    """

    _parameter_constraints = {
        **GradientAttribution._parameter_constraints,
        "metric": [StrOptions({"cosine", "dot"})],
    }

    def __init__(
        self,
        net: NeuralNet | FrozenEstimator | None = None,
        *,
        metric: Literal["cosine", "dot"] = "cosine",
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
        self.metric = metric
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

    def _fit_gradients(self):
        pass

    def _bytes_per_query(self):
        return met_bytes(self._gradients.probe, self._factors())

    def _factors(self):
        return [-1.0 for _ in self._gradients.blocks]

    def _terms(self, queries):
        values = queries.to_meet(self._gradients.trained, self._factors())
        if self.metric == "cosine":
            values = unit_vectors(values)
        values = queries.within_tol(values)
        return [Term([self._gradients.trained], np.ones(1), values, cosine=self.metric == "cosine")]
