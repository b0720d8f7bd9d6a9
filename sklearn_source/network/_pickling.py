"""Skorch nets pickled by the pickler at hand.

skorch packs its modules with a nested plain ``pickle``, which cannot carry classes of ``__main__`` to another process
even where the outer pickler (cloudpickle under joblib's loky) could. Handing that one the net's state goes around it.
"""

from __future__ import annotations

from sklearn.pipeline import Pipeline
from skorch import NeuralNet

from ..utils._compat import FrozenEstimator


def net_from_state(cls, state):
    """A net with a given ``__dict__``: neither __init__ nor skorch's __setattr__ runs, which register modules anew."""
    net = object.__new__(cls)
    vars(net).update(state)
    return net


class PortableNet:
    """A fitted net, also frozen or at the end of a pipeline, that unpickles as itself in another process."""

    def __init__(self, net):
        self.net = net

    def __reduce__(self):
        net = self.net
        if isinstance(net, FrozenEstimator):
            return FrozenEstimator, (PortableNet(net.estimator),)
        if isinstance(net, Pipeline):
            *steps, (name, last) = net.steps
            return net_from_state, (type(net), {**vars(net), "steps": [*steps, (name, PortableNet(last))]})
        if not isinstance(net, NeuralNet) or str(net.device).startswith("cuda"):
            return _same, (net,)  # skorch's own way maps CUDA tensors to the devices that are there
        return net_from_state, (type(net), dict(vars(net)))


def _same(net):
    return net
