"""The ways in which a network comes to an estimator."""

from __future__ import annotations

import functools
from typing import Any

import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from skorch import NeuralNet

from ..network import FittedSteps, split_pipeline
from ..trajectory import Trajectory, recorder_in
from ..utils._compat import FrozenEstimator
from ..utils._warnings import warn


def net_first(method):
    """Let ``method(net, X, y)`` stand for ``method(X, y, net=net)``; introspection still sees ``(X, y, *, net)``."""

    @functools.wraps(method)
    def either(self, *args, **kwargs):
        if args and isinstance(args[0], (NeuralNet, BaseEstimator)):
            if kwargs.get("net") is not None:
                raise TypeError(f"{method.__name__} got two networks, the first argument and net=: pass one")
            net, *args = args
            kwargs["net"] = net
        if len(args) > 2:
            first = "a class" if isinstance(args[0], type) else f"a {type(args[0]).__name__}"
            raise TypeError(
                f"expected {method.__name__}(X, y) or {method.__name__}(net, X, y) with net a trained skorch "
                f"NeuralNet or a fitted pipeline that ends in one, the rest by name; got {len(args)} positional "
                f"arguments, the first of them {first}"
            )
        return method(self, *args, **kwargs)

    return either


def unwrap(net):
    """(skorch net, whether it is frozen: to be used as it is)."""
    frozen = isinstance(net, FrozenEstimator)
    inner = net.estimator if frozen else net
    if inner is None:
        raise ValueError(
            "no network: pass a trained skorch net as fit(net, X, y), or put one into the constructor, frozen "
            "(FrozenEstimator(net)) to be used as it is or bare to be trained on the data of fit"
        )
    if not isinstance(inner, NeuralNet):
        raise _no_network(inner)
    return inner, frozen


def _no_network(given):
    what = f"the class {given.__name__}" if isinstance(given, type) else f"a {type(given).__name__}"
    return TypeError(
        "expected the network, the first argument, as a skorch NeuralNet or a pipeline that ends in one, "
        f"got {what}: wrap a module in one, e.g. NeuralNetRegressor(module, ...), and pass parameters by name "
        "(curvature=EKFAC(), say)"
    )


def require_network_first(net: Any) -> None:
    """Refuse what a constructor got in the place of its network, and what ``fit(net, X, y)`` would leave out.

    Parameters
    ----------
    net : what the constructor has; None, a network or a pipeline
    """
    inner = net.estimator if isinstance(net, FrozenEstimator) else net
    if inner is not None and not isinstance(inner, (NeuralNet, Pipeline)):
        raise _no_network(inner)


def open_pipeline(net: Any, as_is: bool) -> tuple[FittedSteps, Any]:
    """The fitted steps of a pipeline given as the network, and the net behind them, frozen; all else as it came.

    Parameters
    ----------
    net : Pipeline, FrozenEstimator, skorch.NeuralNet, or None
    as_is : bool
        Whether the network is to be used as it is also where it is not frozen.

    Raises
    ------
    ValueError
        If a pipeline would have to be trained.
    """
    steps, inner = split_pipeline(net)
    if not steps and inner is net:
        return steps, net
    if not as_is and not isinstance(net, FrozenEstimator):
        raise ValueError(
            "expected a fitted pipeline as the network of fit(pipeline, X, y), or frozen in the constructor, "
            "FrozenEstimator(pipeline), got a bare one: to have a network trained behind steps, let the method be the "
            "last of them, make_pipeline(StandardScaler(), SourceAttribution(net))"
        )
    return steps, FrozenEstimator(inner)


def net_with_steps(estimator: Any) -> Any:
    """The network of a fitted method as it takes the user's rows, behind the steps of the pipeline it came in.

    Parameters
    ----------
    estimator : fitted attribution method

    Returns
    -------
    net : skorch.NeuralNet, Pipeline, or None
        None of a method without a network.
    """
    net, first = getattr(estimator, "net_", None), getattr(estimator, "members_", [estimator])[0]
    steps = getattr(first, "_front", None)
    return net if net is None or not steps else steps.around(net)


def require_trained(net):
    """Refuse a net without weights."""
    if not getattr(net, "initialized_", False):
        raise NotFittedError(
            f"this {type(net).__name__} is not trained: call net.fit(X, y) first, or put it unfrozen into the "
            "constructor to have a clone of it trained by fit"
        )


def trajectory_of(net, *, needed, given=None):
    """The trajectory that explains a net's weights.

    Parameters
    ----------
    net : skorch.NeuralNet
    needed : bool
        Whether the method cannot do without. Others still use a record to recognise the rows.
    given : Trajectory or path, optional
        What the user says it is.

    Returns
    -------
    trajectory : Trajectory or None

    Raises
    ------
    ValueError
        Where it is needed and there is none, or where it ends at other weights than the net's.
    """
    if given is not None:
        trajectory = given if isinstance(given, Trajectory) else Trajectory.load(given)
        _require_end_at(trajectory, net)
        return trajectory
    if needed:
        return Trajectory.from_net(net)
    if recorder_in(net) is None:
        return None
    try:
        return Trajectory.from_net(net)
    except (
        ValueError
    ) as error:  # weights that the recorder did not see, loaded ones say: nothing is known of their rows
        warn(f"the record of the net's training is left aside: {error}")
        return None


def _require_end_at(trajectory, net):
    last = trajectory.checkpoints[-1].parameters
    own = dict(net.module_.named_parameters())
    differ = sorted(set(own) ^ set(last))
    differ = differ or [name for name, value in own.items() if not torch.equal(value.detach().cpu(), last[name].cpu())]
    if differ:
        raise ValueError(
            f"the trajectory ends at other weights than the net's ({', '.join(differ[:3])} differ): pass the "
            "trajectory of this very training, or the net as that training left it. Of a training that was killed, the "
            "net gets its last checkpoint first: net.module_.load_state_dict(trajectory.checkpoints[-1].parameters, "
            "strict=False)"
        )


def require_all_rows(net, n_rows):
    """Refuse fewer rows than the last epochs of a net without a recorder used: the silent trap of cross-validation."""
    params = net.get_params_for("iterator_train")
    if any(params.get(name) is not None for name in ("sampler", "batch_sampler")):
        return  # an epoch need not be one pass over the rows
    epochs = getattr(net, "history", None) or []
    sizes = [sum(batch.get("train_batch_size", 0) for batch in epoch.get("batches", [])) for epoch in epochs]
    if max(sizes, default=0) > n_rows:
        raise ValueError(
            f"the network was trained on {max(sizes)} rows, fit got {n_rows}: pass all the rows given to net.fit. "
            "Inside cross-validation a frozen net meets subsets of its rows: keep all rows in every fold "
            "(cv=FullTrainingSet(); in a halving search, a parameter as resource), or pass the net unfrozen to have it "
            "retrained"
        )
