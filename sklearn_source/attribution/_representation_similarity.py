"""Similarity of representations (Hanawa et al. 2021)."""

from __future__ import annotations

import difflib
from typing import Literal

import numpy as np
import torch
from skorch import NeuralNet
from torch import nn

from ..base import FeatureAttribution
from ..utils._compat import FrozenEstimator, StrOptions
from ._row_activations import RowActivations

_N_FEW = 5  # rows on which it is seen where a layer has its rows


class RepresentationSimilarity(FeatureAttribution):
    """Similarity of a query's and a training row's activations in one layer of the trained network.

    Read more in the :ref:`User Guide <similarities>`.

    Parameters
    ----------
    net : skorch.NeuralNet or FrozenEstimator of one, optional
        The network. Frozen: used as it is. Bare: a clone is trained on the data of ``fit``. None: given to ``fit``.
    metric : {"cosine", "dot", "l2"}, default="cosine"
        ``"l2"`` is minus the Euclidean distance.
    layer : str, optional
        The layer whose output is compared (the first, where it gives several); None: the input of the last layer that
        has parameters, or its output, where its input are ids.
    batch_size : int, optional
        Rows per forward pass; None: 512. Scores do not depend on it.
    n_jobs : int, optional
        Workers that share the training rows in ``fit``, as joblib counts them: None is 1 except in a
        ``joblib.parallel_config`` context, -1 all processors (:ref:`User Guide <jobs>`). Scores depend on it by
        rounding alone.
    random_state : int, RandomState instance or None, default=None
        Seeds training where ``fit`` trains. None: fresh entropy.
    verbose : int, default=0
        Show progress.

    Attributes
    ----------
    layer_ : str
        The layer used.
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
    No unit, only an order, and no sign of support: similar rows with the opposite label score high too. Neither targets
    nor the loss are looked at: ``fit(net, X)`` will do. Rows may be any axis of the activations (time first), or be
    flattened together with positions. Cost: one forward pass over the training rows in ``fit``, whose activations are
    kept, and one over the queries; row by row where the layer mixes its axes otherwise.

    References
    ----------
    .. [1] Hanawa, Yokoi, Hara, Inui (2021), "Evaluation of Similarity-based Explanations", ICLR.
    """

    _parameter_constraints = {
        **{k: v for k, v in FeatureAttribution._parameter_constraints.items() if k not in ("measurement", "output")},
        "metric": [StrOptions({"cosine", "dot", "l2"})],
        "layer": [None, str],
    }

    _reads_loss = False

    def __init__(
        self,
        net: NeuralNet | FrozenEstimator | None = None,
        *,
        metric: Literal["cosine", "dot", "l2"] = "cosine",
        layer: str | None = None,
        batch_size: int | None = None,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ):
        self.net = net
        self.metric = metric
        self.layer = layer
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def _training_draws(self):
        """Those of the queries: activations compare draw by draw."""
        return self._measured_draws(None)

    def _begin_features(self):
        modules = dict(self._network.module.named_modules())
        if self.layer is not None and self.layer not in modules:
            near = difflib.get_close_matches(self.layer, modules, n=3) or [name for name in modules if name][:6]
            raise ValueError(f"layer: the network has no layer {self.layer!r}; did you mean one of {near}?")
        self.layer_ = self.layer if self.layer is not None else self._last_layer(modules)
        few = np.flatnonzero(np.isin(np.arange(self.n_train_), np.unique(self._keys, return_index=True)[1]))[:_N_FEW]
        x = self._rows.batch(few)[0]
        self._activations = RowActivations(self._network, self.layer_, self.layer is None, x, len(few))
        self._width = self._activations(x, len(few)).shape[1]  # of few rows: workers see some of the others each

    def _fit_features(self, features):
        if not bool(torch.isfinite(features).all()):
            raise ValueError(f"the activations of layer {self.layer_!r} are not finite on some training rows")
        return features

    def _last_layer(self, modules):
        """The layer with parameters of its own that runs last."""
        order = []
        handles = [
            m.register_forward_pre_hook(lambda _, args, name=name: order.append(name))
            for name, m in modules.items()
            if list(m.parameters(recurse=False)) and not isinstance(m, nn.Flatten)
        ]
        try:
            with torch.no_grad():
                self._network.forward(self._rows.batch(slice(0, 1))[0])
        finally:
            for handle in handles:
                handle.remove()
        if not order:
            raise ValueError("no layer with parameters ran: name one with layer=")
        return order[-1]

    def _features(self, rows, index, measure):
        """Activations, flattened: (n, width); for cosine, of unit length."""
        activations = self._activations(rows.batch(index)[0], len(index))
        if activations.shape[1] != self._width:
            raise ValueError(
                f"expected activations of one size per row in layer {self.layer_!r}, got {self._width} and "
                f"{activations.shape[1]} numbers (rows of different lengths?): pad the rows to one length, or name a "
                "layer behind the pooling, layer="
            )
        if self.metric == "cosine":
            norm = activations.norm(dim=1, keepdim=True)
            activations = activations / norm.clamp_min(torch.finfo(activations.dtype).tiny)
        return activations

    def _self_features(self, columns):
        return self._training_features[columns]

    def _compare(self, queries, training):
        if self.metric == "l2":
            # Exact differences: the expanded square loses near neighbours to rounding.
            return -torch.cdist(queries, training, compute_mode="donot_use_mm_for_euclid_dist")
        return queries @ training.T

    def _compare_rows(self, queries, training):
        return queries.new_zeros(len(queries)) if self.metric == "l2" else (queries * training).sum(1)
