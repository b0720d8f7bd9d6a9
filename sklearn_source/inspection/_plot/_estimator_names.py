"""What a legend says of estimators: their names, and whether their scores have a unit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from sklearn.base import BaseEstimator

_NOT_IN_NAMES = {"net", "trajectory", "verbose", "random_state", "batch_size"}


def estimator_names(estimators):
    """Name estimators by their class, and by the parameters in which those of one class differ.

    Parameters
    ----------
    estimators : iterable of estimator
        In the order of the legend.

    Returns
    -------
    by_name : dict of str to estimator
        In the same order.

    Raises
    ------
    ValueError
        Without any.
    TypeError
        If it is no list, or holds other things.
    """
    if not isinstance(estimators, Iterable):
        raise TypeError(f"expected a list of estimators, or a dict of names to them, got a {type(estimators).__name__}")
    estimators = list(estimators)
    for estimator in estimators:
        if not isinstance(estimator, BaseEstimator):
            raise TypeError(f"expected estimators in the list, got a {type(estimator).__name__}")
    if not estimators:
        raise ValueError("expected at least one estimator, got an empty list")
    by_class = defaultdict(list)
    for estimator in estimators:
        parameters = {name: repr(value) for name, value in estimator.get_params(deep=False).items()}
        by_class[type(estimator).__name__].append(parameters)
    by_name = {}
    for estimator in estimators:
        cls = type(estimator).__name__
        own = estimator.get_params(deep=False)
        differ = [n for n in own if n not in _NOT_IN_NAMES and len({p.get(n) for p in by_class[cls]}) > 1]
        name = cls + (f"({', '.join(f'{n}={own[n]!r}' for n in differ)})" if differ else "")
        number = 2
        while name in by_name:
            name, number = f"{name.split(' #')[0]} #{number}", number + 1
        by_name[name] = estimator
    return by_name


def has_unit(estimator):
    """Whether scores of an estimator, or of the method that a search or pipeline ends in, carry a unit."""
    estimator = getattr(estimator, "best_estimator_", estimator)
    return bool(getattr(estimator[-1] if hasattr(estimator, "steps") else estimator, "has_unit", False))
