"""Similarities: of gradients (Charpiat et al. 2019) and of representations (Hanawa et al. 2021)."""

from __future__ import annotations

import difflib

import numpy as np
import torch
from torch import nn

from ..base import BaseAttribution, GradientAttribution, Term
from ..gradients.algebra import met_bytes, unit_vectors
from ..utils._compat import StrOptions


class GradientSimilarity(GradientAttribution):
    """Similarity of a query's gradient and a training row's at the trained weights.

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
        return met_bytes(self._probe, self._factors())

    def _factors(self):
        return [-1.0 for _ in self._engine.blocks]

    def _terms(self, queries):
        values = queries.to_meet(self._final, self._factors())
        if self.metric == "cosine":
            values = unit_vectors(values)
        return [Term([self._final], np.ones(1), values, cosine=self.metric == "cosine")]


class RepresentationSimilarity(BaseAttribution):
    """Similarity of a query's and a training row's activations in one layer of the trained network.

    Parameters
    ----------
    net : skorch.NeuralNet or FrozenEstimator of one, optional
        The network. Frozen: used as it is. Bare: a clone is trained on the data of ``fit``. None: given to ``fit``.
    metric : {"cosine", "dot", "l2"}, default="cosine"
        ``"l2"`` is minus the Euclidean distance.
    layer : str, optional
        The layer whose output is compared; None: the input of the last layer that has parameters.
    batch_size, random_state, verbose
        As in :class:`SourceAttribution`.

    Attributes
    ----------
    layer_ : str
        The layer used.
    net_, n_train_, n_features_in_, feature_names_in_
        As in :class:`SourceAttribution`.

    Notes
    -----
    No unit, only an order, and no sign of support: similar rows with the opposite label score high too. Cost: one
    forward pass over the training rows in ``fit``, whose activations are kept, and one over the queries.

    References
    ----------
    .. [1] Hanawa, Yokoi, Hara, Inui (2021), "Evaluation of Similarity-based Explanations", ICLR.
    """

    _parameter_constraints = {
        **{k: v for k, v in BaseAttribution._parameter_constraints.items() if k not in ("measurement", "output")},
        "metric": [StrOptions({"cosine", "dot", "l2"})],
        "layer": [None, str],
    }

    def __init__(self, net=None, *, metric="cosine", layer=None, batch_size=None, random_state=None, verbose=0):
        self.net = net
        self.metric = metric
        self.layer = layer
        self.batch_size = batch_size
        self.random_state = random_state
        self.verbose = verbose

    def _fit_method(self):
        self._batch = self.batch_size or 512
        modules = dict(self._network.module.named_modules())
        if self.layer is not None and self.layer not in modules:
            near = difflib.get_close_matches(self.layer, modules, n=3) or [name for name in modules if name][:6]
            raise ValueError(f"layer: the network has no layer {self.layer!r}; did you mean one of {near}?")
        self.layer_ = self.layer if self.layer is not None else self._last_layer(modules)
        self._activations = self._represent(self._rows, np.arange(self.n_train_))
        if not bool(torch.isfinite(self._activations).all()):
            raise ValueError(f"the activations of layer {self.layer_!r} are not finite on some training rows")

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

    def _represent(self, rows, index):
        """Activations of rows, flattened: (n, width); for cosine, of unit length."""
        found, parts = [], []
        take_input = self.layer is None

        def hook(module, args, output):
            found.append(args[0] if take_input else output)

        handle = self._network.module.get_submodule(self.layer_).register_forward_hook(hook)
        try:
            with torch.no_grad():
                for start in range(0, len(index), self._batch):
                    found.clear()
                    x, _ = rows.batch(index[start : start + self._batch])
                    self._network.forward(x)
                    self._check(found)
                    parts.append(found[-1].detach().flatten(1).clone())
        finally:
            handle.remove()
        activations = torch.cat(parts)
        if self.metric == "cosine":
            norm = activations.norm(dim=1, keepdim=True)
            activations = activations / norm.clamp_min(torch.finfo(activations.dtype).tiny)
        return activations

    def _check(self, found):
        if not found or not isinstance(found[-1], torch.Tensor):
            raise ValueError(f"layer {self.layer_!r} did not give one tensor on these rows: name another with layer=")

    def _prepare_queries(self, rows, index, measure):
        return self._represent(rows, index)

    def _score_batches(self, queries, n_queries):
        for start in range(0, self.n_train_, self._batch):
            columns = slice(start, min(start + self._batch, self.n_train_))
            yield columns, self._compare(queries, self._activations[columns])

    def _compare(self, a, b):
        if self.metric == "l2":
            # Exact differences: the expanded square loses near neighbours to rounding.
            return -torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
        return a @ b.T

    def _self_batches(self):
        activations = self._activations
        scores = activations.new_zeros(self.n_train_) if self.metric == "l2" else activations.square().sum(1)
        yield slice(0, self.n_train_), scores
