"""Names for estimators in a legend."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from sklearn.base import BaseEstimator

_SILENT = {"net", "trajectory", "verbose", "random_state", "batch_size"}


def estimator_names(estimators):
    """Estimators by name: the class, and the parameters in which those of one class differ.

    Parameters
    ----------
    estimators : iterable of estimator

    Returns
    -------
    named : dict of str to estimator, in the same order

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
    alike = defaultdict(list)
    for estimator in estimators:
        alike[type(estimator).__name__].append({name: repr(v) for name, v in estimator.get_params(deep=False).items()})
    named = {}
    for estimator in estimators:
        cls = type(estimator).__name__
        own = estimator.get_params(deep=False)
        differ = [name for name in own if name not in _SILENT and len({p.get(name) for p in alike[cls]}) > 1]
        name = cls + (f"({', '.join(f'{n}={own[n]!r}' for n in differ)})" if differ else "")
        number = 2
        while name in named:
            name, number = f"{name.split(' #')[0]} #{number}", number + 1
        named[name] = estimator
    return named
