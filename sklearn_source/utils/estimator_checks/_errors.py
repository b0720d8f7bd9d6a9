"""Checks of what an estimator refuses."""

from __future__ import annotations

import numpy as np
from sklearn.exceptions import NotFittedError

from ._tools import fitted, prepared, require_error


def check_attribution_unfitted(name, estimator, case):
    """Nothing is scored before ``fit``."""
    model = prepared(estimator)
    for what, action in {
        "transform": lambda: model.transform(case.X_query, case.y_query),
        "top_influences": lambda: model.top_influences(case.X_query, case.y_query, k=1),
        "self_influence": lambda: model.self_influence(),
    }.items():
        require_error(NotFittedError, action, f"{name}.{what} before fit")


def check_attribution_untrained_net(name, estimator, case):
    """A net without weights has no attribution."""
    net = case.new_net()
    require_error(NotFittedError, lambda: prepared(estimator).fit(net, case.X, case.y), f"{name}.fit, untrained net")


def check_attribution_other_rows(name, estimator, case):
    """Rows that are not those the net was trained on are refused: their scores would look like any others."""
    net = case.trained_net()
    X, y = case.X.copy(), case.y.copy()
    X[2] += 1
    y[4] = y[4] + 1 if case.task == "regression" else (y[4] + 1) % 3
    more = np.concatenate([case.X, case.X_query[:2]]), np.concatenate([case.y, case.y_query[:2]])
    for what, rows in {
        "a changed row of X": (X, case.y),
        "a changed target": (case.X, y),
        "missing rows": (case.X[:-3], case.y[:-3]),
        "rows never trained on": more,
    }.items():
        require_error(ValueError, lambda rows=rows: prepared(estimator).fit(net, *rows), f"{name}.fit with {what}")


def check_attribution_not_finite(name, estimator, case):
    """NaN and infinity are refused wherever they come in."""
    net = case.trained_net()
    model = fitted(estimator, case, net=net)
    for value in (np.nan, np.inf):
        X, X_query = case.X.copy(), case.X_query.copy()
        X[1, 0] = X_query[1, 0] = value
        require_error(ValueError, lambda X=X: prepared(estimator).fit(net, X, case.y), f"{name}.fit with {value} in X")
        require_error(
            ValueError, lambda X=X_query: model.transform(X, case.y_query), f"{name}.transform with {value} in X"
        )
        if case.task == "regression":
            y = case.y.copy()
            y[2] = value
            require_error(
                ValueError, lambda y=y: prepared(estimator).fit(net, case.X, y), f"{name}.fit with {value} in y"
            )


def check_attribution_width(name, estimator, case):
    """Queries of another width than the training rows are refused."""
    model = fitted(estimator, case)
    wide = np.concatenate([case.X_query, case.X_query], axis=1)
    require_error(ValueError, lambda: model.transform(wide, case.y_query), f"{name}.transform of queries too wide")
    require_error(
        ValueError, lambda: model.transform(case.X_query[:, :2], case.y_query), f"{name}.transform, queries too narrow"
    )


def check_attribution_k(name, estimator, case):
    """``k`` has to be a number of training rows."""
    model = fitted(estimator, case)
    for k in (0, -1, len(case.X) + 1, 1.5, None):
        require_error(
            (ValueError, TypeError),
            lambda k=k: model.top_influences(case.X_query, case.y_query, k=k),
            f"{name}.top_influences with k={k!r}",
        )
    require_error(
        ValueError,
        lambda: model.top_influences(case.X_query, case.y_query, k=1, order="best"),
        f"{name}.top_influences with order='best'",
    )
