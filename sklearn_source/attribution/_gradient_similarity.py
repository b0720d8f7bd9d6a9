"""Similarity of gradients at the trained weights (Charpiat et al. 2019)."""

from __future__ import annotations

import numpy as np

from ..base import GradientAttribution, Term
from ..gradients.algebra import met_bytes, unit_vectors
from ..utils._compat import StrOptions


class GradientSimilarity(GradientAttribution):
    """Similarity of a query's gradient and a training row's at the trained weights.

    Read more in the :ref:`User Guide <similarities>`.

    Parameters
    ----------
    net : skorch.NeuralNet or FrozenEstimator of one, optional
        The network. Frozen: used as it is. Bare: a clone is trained on the data of ``fit``. None: given to ``fit``.
    metric : {"cosine", "dot"}, default="cosine"
        Of ``-grad f_q`` and ``grad l_m``.
    measurement, output, layers, batch_size, random_state, verbose
        As in :class:`SourceAttribution`.

    Attributes
    ----------
    net_, n_train_, n_features_in_, feature_names_in_
        As in :class:`SourceAttribution`.

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
        net=None,
        *,
        metric="cosine",
        measurement="auto",
        output=None,
        layers=None,
        batch_size=None,
        random_state=None,
        verbose=0,
    ):
        self.net = net
        self.metric = metric
        self.measurement = measurement
        self.output = output
        self.layers = layers
        self.batch_size = batch_size
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
        return [Term([self._gradients.trained], np.ones(1), values, cosine=self.metric == "cosine")]
