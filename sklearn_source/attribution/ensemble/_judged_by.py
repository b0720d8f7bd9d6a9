"""One question for all members: the classes that one network predicts."""

from __future__ import annotations

import torch

from ...base import NetworkAttribution
from ...loss import Measurement
from ...network import Network


class JudgedBy(Measurement):
    """A member's measurement, of the classes that the network predicts which the members come of.

    Members may predict other classes, whose log-odds have no mean that says anything.

    Parameters
    ----------
    measure : Measurement
        Of the member.
    network : Network
        The one that predicts, at its trained weights.
    """

    def __init__(self, measure, network):
        self._measure, self._judge = measure, network
        self.name, self.needs_y, self.output = measure.name, measure.needs_y, measure.output

    def target(self, output, y=None, x=None):
        if y is None and not self.needs_y:
            with torch.no_grad():
                output = self._judge.forward(x)
        return self._measure.target(output, y, x)

    def __call__(self, output, target=None, x=None):
        return self._measure(output, target, x)


def judge_by(members, net):
    """Let fitted members measure the classes that ``net`` predicts, where they predict classes; in place."""
    network = None
    for member in members:
        if isinstance(member, NetworkAttribution) and member._network.is_classification:
            network = network or Network.from_net(net)
            member._measure = JudgedBy(member._measure, network)
