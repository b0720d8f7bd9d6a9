"""The three ways a network comes to an estimator, and what each does to the data."""

from __future__ import annotations

import functools

import numpy as np
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from skorch import NeuralNet, NeuralNetClassifier, NeuralNetRegressor

from ..trajectory import TrajectoryRecorder
from ..utils._compat import FrozenEstimator


def net_first(method):
    """Let ``fit(net, X, y)`` stand for ``fit(X, y, net=net)``; introspection still sees ``(X, y, *, net)``."""

    @functools.wraps(method)
    def fit(self, X, y=None, *args, **kwargs):
        if isinstance(X, (NeuralNet, FrozenEstimator)):
            if kwargs.get("net") is not None:
                raise TypeError("fit got two networks: the first argument and net=. Pass one")
            if len(args) > 1:
                raise TypeError("fit(net, X, y) takes three positional arguments: pass the others by name")
            kwargs["net"] = X
            if y is not None:
                X, y = y, (args[0] if args else kwargs.pop("y", None))
            else:
                X, y = kwargs.pop("X", None), kwargs.pop("y", None)
            return method(self, X, y, **kwargs)
        if args:
            raise TypeError(
                f"fit takes (X, y) or (net, X, y) with net a skorch NeuralNet, got a {type(X).__name__} as first of "
                f"{2 + len(args)} positional arguments"
            )
        return method(self, X, y, **kwargs)

    return fit


def unwrap(net):
    """(skorch net, whether it is to be used as it is)."""
    frozen = isinstance(net, FrozenEstimator)
    inner = net.estimator if frozen else net
    if inner is None:
        raise ValueError(
            "no network: pass a trained skorch net as fit(net, X, y), or put one into the constructor, frozen "
            "(FrozenEstimator(net)) to be used as it is or bare to be trained on the data of fit"
        )
    if not isinstance(inner, NeuralNet):
        raise TypeError(f"the network must be a skorch NeuralNet, got {type(inner).__name__}: wrap the module in one")
    return inner, frozen


def require_trained(net):
    if not getattr(net, "initialized_", False):
        raise NotFittedError(
            f"this {type(net).__name__} is not trained: call net.fit(X, y) first, or pass it unfrozen to the constructor "
            "to have it trained here"
        )
    return net


def match_target(net, y):
    """``y`` in the form in which this kind of net is trained: (n, 1) for regressors, integers for class labels."""
    if not isinstance(y, np.ndarray):
        return y
    if isinstance(net, NeuralNetRegressor) and y.ndim == 1:
        return y.reshape(-1, 1)  # skorch refuses 1-D regression targets, so the net was trained on a column
    if isinstance(net, NeuralNetClassifier) and y.dtype.kind in "iufb" and y.ndim == 1:
        if y.dtype.kind == "f" and not np.array_equal(y, y.round()):
            raise ValueError("class labels must be integers 0..n_classes-1, got fractional values in y")
        return y.astype(np.int64)
    return y


def train_clone(net, X, y, *, random_state, needs_trajectory, n_checkpoints=None):
    """A clone of ``net``, trained on ``X, y``; a recorder is added where the method needs one and there is none.

    The global random state of torch is put back as it was.
    """
    fresh = clone(net)
    if needs_trajectory and not has_recorder(fresh):
        given = fresh.get_params(deep=False).get("callbacks")
        given = list(given) if given not in (None, "disable") else []
        recorder = TrajectoryRecorder() if n_checkpoints is None else TrajectoryRecorder(n_checkpoints=n_checkpoints)
        fresh.set_params(callbacks=[*given, ("trajectory_recorder", recorder)])
    if isinstance(y, np.ndarray) and y.dtype.kind in "iufb" and not isinstance(net, NeuralNetClassifier):
        y = y.astype(np.float32) if y.dtype.kind != "f" or isinstance(net, NeuralNetRegressor) else y
    if isinstance(X, np.ndarray) and X.dtype.kind == "f":
        X = X.astype(np.float32, copy=False)
    devices = [torch.device(fresh.device)] if str(fresh.device).startswith("cuda") else []
    state = np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        if random_state is not None:
            torch.manual_seed(random_state)
            np.random.seed(random_state % 2**32)
        try:
            fresh.fit(X, y)
        finally:
            np.random.set_state(state)
    return fresh, X, y


def has_recorder(net):
    callbacks = net.get_params(deep=False).get("callbacks") or []
    if callbacks == "disable":
        return False
    return any(isinstance(c[1] if isinstance(c, tuple) else c, TrajectoryRecorder) for c in callbacks)


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
            return _rebuild_frozen, (PortableNet(net.estimator),)
        if str(getattr(net, "device", "cpu")).startswith("cuda"):
            return _same, (net,)  # skorch maps CUDA tensors to what the reader has
        return _rebuild, (type(net), dict(net.__dict__))


def _same(net):
    return net


def _rebuild(cls, state):
    net = cls.__new__(cls)
    net.__dict__.update(state)
    return net


def _rebuild_frozen(net):
    return FrozenEstimator(net)
