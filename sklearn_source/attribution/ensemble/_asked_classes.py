"""What members are asked about a query without a target: the same of all of them."""

from __future__ import annotations

import numpy as np
import torch

from ...base import NetworkAttribution
from ...loss import resolve_measurement
from ...network import Network

_BATCH = 1024
_OF_A_CLASS = ("auto", "log_odds")


class AskedClasses:
    """The classes that one network predicts, as the targets of queries that have none.

    Members predict different classes, and the mean of log-odds of several would be of none.

    Parameters
    ----------
    member : BaseAttribution
        Fitted: says what is measured, and reads queries.
    net : skorch.NeuralNet
        Trained.
    """

    def __init__(self, member, net):
        self._member, self._network = member, None
        measurement = getattr(member, "measurement", None)
        if not isinstance(member, NetworkAttribution) or measurement not in _OF_A_CLASS:
            return
        network = Network.from_net(net)
        measure = resolve_measurement(measurement, network)
        if measure.name == "log_odds" and not network.is_sequence:  # of tokens, each member is asked about its own
            self._network, self._measure = network, measure

    def of(self, X, y):
        """The targets of queries: those given, else the predicted classes; None where there is nothing to choose."""
        if y is not None or self._network is None:
            return y
        parts = []
        with self._member._exclusive(), torch.no_grad():
            for _, rows, index in self._member._query_chunks(X, None)[1]:
                if rows.has_y:  # a Dataset with targets of its own
                    return None
                for some in np.array_split(index, -(-len(index) // _BATCH)):
                    x, _ = rows.batch(some)
                    parts.append(self._measure.target(self._network.forward(x), None, x).cpu())
        return torch.cat(parts).numpy()
