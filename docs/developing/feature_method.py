"""Distance of predictions: a feature method of few lines."""

from __future__ import annotations

import torch

from sklearn_source.base import FeatureAttribution


class OutputDistance(FeatureAttribution):
    """Minus the distance of what the network says of query and training row; an order, no unit."""

    _parameter_constraints = {
        name: allowed
        for name, allowed in FeatureAttribution._parameter_constraints.items()
        if name not in ("measurement", "output")
    }

    def __init__(self, net=None, *, batch_size=None, random_state=None, verbose=0):
        self.net = net
        self.batch_size = batch_size
        self.random_state = random_state
        self.verbose = verbose

    def _features(self, rows, index, measure):
        with torch.no_grad():
            return self._network.forward(rows.batch(index)[0]).flatten(1)  # (n, width)

    def _compare(self, queries, training):
        return -torch.cdist(queries, training, compute_mode="donot_use_mm_for_euclid_dist")  # (n_query, n)

    def _self_features(self, columns):
        return self._training_features[columns]
