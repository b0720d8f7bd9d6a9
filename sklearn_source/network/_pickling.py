"""Fitted nets that cross to another process."""

from __future__ import annotations

from skorch import NeuralNet

from ..utils._compat import FrozenEstimator


class PortableNet:
    """Pickle a skorch net through the pickler at hand.

    skorch packs its modules with plain ``pickle``, which cannot carry classes of ``__main__`` to another process;
    handing the state to the outer pickler (cloudpickle under joblib's loky) can.
    """

    def __init__(self, net):
        self.net = net

    def __reduce__(self):
        net = self.net
        if isinstance(net, FrozenEstimator):
            return FrozenEstimator, (PortableNet(net.estimator),)
        if not isinstance(net, NeuralNet) or str(net.device).startswith("cuda"):
            return _same, (net,)  # skorch's own way maps CUDA tensors to the devices that are there
        return _rebuild, (type(net), dict(vars(net)))


def _same(net):
    return net


def _rebuild(cls, state):
    net = cls.__new__(cls)
    vars(net).update(state)
    return net
