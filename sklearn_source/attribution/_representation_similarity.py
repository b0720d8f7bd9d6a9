"""Similarity of representations (Hanawa et al. 2021)."""

from __future__ import annotations

import difflib

import torch
from torch import nn

from ..base import FeatureAttribution
from ..utils._compat import StrOptions


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
        **{k: v for k, v in FeatureAttribution._parameter_constraints.items() if k not in ("measurement", "output")},
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

    def _begin_features(self):
        modules = dict(self._network.module.named_modules())
        if self.layer is not None and self.layer not in modules:
            near = difflib.get_close_matches(self.layer, modules, n=3) or [name for name in modules if name][:6]
            raise ValueError(f"layer: the network has no layer {self.layer!r}; did you mean one of {near}?")
        self.layer_ = self.layer if self.layer is not None else self._last_layer(modules)

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
        calls = []
        take_input = self.layer is None

        def hook(module, args, output):
            calls.append(args[0] if take_input else output)

        handle = self._network.module.get_submodule(self.layer_).register_forward_hook(hook)
        try:
            with torch.no_grad():
                self._network.forward(rows.batch(index)[0])
        finally:
            handle.remove()
        if not calls or not isinstance(calls[-1], torch.Tensor):
            raise ValueError(f"layer {self.layer_!r} did not give one tensor on these rows: name another with layer=")
        activations = calls[-1].detach().flatten(1).clone()
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
