"""Checks of what an estimator keeps and what it leaves alone."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import torch
from sklearn.base import clone

from .._compat import FrozenEstimator
from ._cases import make_case
from ._net_fingerprint import changed, fingerprint
from ._tools import fitted, has_param, prepared, require, require_close, require_error, scores_of

# Of the largest score, where the very same computation is repeated.
SAME_RTOL = 1e-6


def check_attribution_net_untouched(name, estimator, case):
    """Nothing that is asked of an estimator changes the user's net, or any global random state."""
    net = case.trained_net()
    calls = []
    net.module_.train()  # as training leaves it: evaluation mode would change what is attributed
    for parameter in net.module_.parameters():
        parameter.grad = torch.ones_like(parameter)
    net.module_.register_forward_hook(lambda *_: calls.append("forward"))
    before = fingerprint(net)
    model = prepared(estimator)
    steps = {
        "fit": lambda: model.fit(net, case.X, case.y),
        "transform": lambda: model.transform(case.X_query, case.y_query),
        "top_influences": lambda: model.top_influences(case.X_query, case.y_query, k=2),
        "self_influence": lambda: model.self_influence(),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step, action in steps.items():
            action()
            touched = changed(before, fingerprint(net))
            require(not touched, f"{name}.{step} changed {', '.join(touched[:4])}")
            require(not calls, f"{name}.{step} ran the user's own module, whose hooks saw it: work on a copy")
        bad = np.full_like(case.X, np.nan)
        require_error(ValueError, lambda: prepared(estimator).fit(net, bad, case.y), f"{name}.fit with NaN in X")
    touched = changed(before, fingerprint(net))
    require(not touched, f"a failing {name}.fit changed {', '.join(touched[:4])}")


def check_attribution_frozen_net(name, estimator, case):
    """A frozen net in the constructor serves as the same net given to ``fit``, and ``clone`` keeps its training."""
    if not has_param(estimator, "net"):
        return
    net = case.trained_net()
    expected = fitted(estimator, case, net=net).transform(case.X_query, case.y_query)
    frozen = prepared(estimator, net=FrozenEstimator(net)).fit(case.X, case.y)
    require_close(
        frozen.transform(case.X_query, case.y_query),
        expected,
        SAME_RTOL,
        f"{name}(FrozenEstimator(net)).fit(X, y) and {name}().fit(net, X, y) give different scores",
    )
    cloned = clone(frozen).fit(case.X, case.y)
    require_close(
        cloned.transform(case.X_query, case.y_query),
        expected,
        SAME_RTOL,
        f"a clone of {name}(FrozenEstimator(net)) gives different scores: it lost the net's training",
    )


def check_attribution_bare_net(name, estimator, case):
    """A bare net in the constructor is cloned, trained with the seed, and itself left untrained."""
    if not has_param(estimator, "net"):
        return
    net = case.new_net()
    before = fingerprint(net)
    model = prepared(estimator, net=net).fit(case.X, case.y)
    scores = model.transform(case.X_query, case.y_query)
    touched = changed(before, fingerprint(net))
    require(not touched, f"{name}(net).fit changed {', '.join(touched[:4])} instead of training a clone")
    require(scores.shape == (len(case.X_query), len(case.X)), f"{name}(net) gave scores of shape {scores.shape}")
    if has_param(estimator, "random_state"):
        again = clone(model).fit(case.X, case.y).transform(case.X_query, case.y_query)
        require_close(again, scores, SAME_RTOL, f"{name}(net, random_state=0) trains another net at every fit")


def check_attribution_pickle(name, estimator, case):
    """A fitted estimator comes back from pickle with the same scores."""
    model = fitted(estimator, case)
    restored = pickle.loads(pickle.dumps(model))
    for what, action in _score_calls(case).items():
        require_close(action(restored), action(model), SAME_RTOL, f"{name}.{what} changes with pickling")


def check_attribution_refit(name, estimator, case):
    """Scores depend on the last fit alone; asking changes nothing; the same seed gives the same scores."""
    model = fitted(estimator, case)
    params = dict(model.get_params(deep=False))
    scores = model.transform(case.X_query, case.y_query)
    for action in _score_calls(case).values():
        action(model)
    again = model.transform(case.X_query, case.y_query)
    require_close(again, scores, SAME_RTOL, f"{name}.transform gives other scores after the estimator was asked before")
    other = make_case(case.task, seed=5)
    model.fit(other.trained_net(), other.X, other.y)
    model.fit(case.trained_net(), case.X, case.y)
    again = model.transform(case.X_query, case.y_query)
    require_close(again, scores, SAME_RTOL, f"{name} remembers an earlier fit, or is not reproducible with its seed")
    moved = [key for key, value in model.get_params(deep=False).items() if params[key] is not value]
    require(not moved, f"{name} changes its own parameters {moved}")
    fresh = scores_of(estimator, case)
    require_close(fresh, scores, SAME_RTOL, f"two {name} with the same seed give different scores")


def check_attribution_failed_fit(name, estimator, case):
    """A fit that fails leaves an estimator unfitted, or fitted as it was."""
    model = fitted(estimator, case)
    scores = model.transform(case.X_query, case.y_query)
    bad = case.X.copy()
    bad[3, 1] = np.inf
    require_error(ValueError, lambda: model.fit(case.trained_net(), bad, case.y), f"{name}.fit with infinity in X")
    try:
        again = model.transform(case.X_query, case.y_query)
    except Exception as error:
        require(
            type(error).__name__ == "NotFittedError",
            f"{name} is broken after a failed fit: {type(error).__name__}: {error}",
        )
        return
    require_close(again, scores, SAME_RTOL, f"{name} gives other scores after a failed fit")


def _score_calls(case):
    """The public ways to scores, by name: each takes a fitted model."""
    return {
        "transform": lambda model: model.transform(case.X_query, case.y_query),
        "top_influences": lambda model: model.top_influences(case.X_query, case.y_query, k=3).scores,
        "self_influence": lambda model: model.self_influence(),
    }
