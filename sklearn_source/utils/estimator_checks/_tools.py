"""What the checks have in common: fitting, comparing, expecting errors."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.base import clone


def has_param(estimator, name):
    """Whether the constructor takes ``name``."""
    return name in estimator.get_params(deep=False)


def prepared(estimator, **params):
    """A clone with a fixed seed, where it has one, and other parameters."""
    copy = clone(estimator)
    if has_param(copy, "random_state"):
        params.setdefault("random_state", 0)
    return copy.set_params(**params)


def fitted(estimator, case, net=None, **params):
    """A clone fitted on a case's net and training rows."""
    return prepared(estimator, **params).fit(case.trained_net() if net is None else net, case.X, case.y)


def scores_of(estimator, case, **params):
    """Scores of a case's queries by a freshly fitted clone."""
    return fitted(estimator, case, **params).transform(case.X_query, case.y_query)


def require(condition, message):
    """Fail with a message; unlike ``assert`` also under ``python -O``."""
    if not condition:
        raise AssertionError(message)


def require_close(actual, expected, rtol, message):
    """Differences below ``rtol`` of the largest expected value, or a message with the numbers."""
    actual, expected = np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    require(actual.shape == expected.shape, f"{message}: shapes {actual.shape} and {expected.shape}")
    scale = np.abs(expected).max() or 1.0
    error = np.abs(actual - expected).max() / scale
    require(error <= rtol, f"{message}: they differ by {error:.1e} of the largest score, at most {rtol:.0e} is allowed")


def require_error(errors, action, message):
    """The action must raise one of these errors, with something to read in it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            action()
    except errors as error:
        require(len(str(error)) > 10, f"{message}: the error says too little: {error!r}")
    except Exception as error:
        wanted = " or ".join(e.__name__ for e in (errors if isinstance(errors, tuple) else (errors,)))
        raise AssertionError(f"{message}: expected {wanted}, got {type(error).__name__}: {error}") from error
    else:
        raise AssertionError(f"{message}: no error was raised")
