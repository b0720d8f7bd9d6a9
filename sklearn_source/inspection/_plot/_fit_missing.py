"""Methods to be compared, those that are not fitted yet fitted like one that is."""

from __future__ import annotations

from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from ...base import NetworkAttribution, net_with_steps


def fit_missing(by_name, net, X_train, y_train):
    """Yield (name, fitted estimator): the fitted ones as they are, of the others a fitted clone.

    Parameters
    ----------
    by_name : dict of str to estimator
        Methods, pipelines and searches.
    net : skorch.NeuralNet or None
        For those that hold none; None: the network of the first fitted one.
    X_train, y_train : array-like or None
        To fit them on; None: the rows of the first fitted one.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If there are no rows to fit one on.
    """
    methods = [getattr(estimator, "best_estimator_", estimator) for estimator in by_name.values()]
    example = next((m for m in methods if isinstance(m, NetworkAttribution) and _is_fitted(m)), None)
    for name, estimator in by_name.items():
        if _is_fitted(estimator):
            yield name, estimator
        else:
            yield name, _fit_clone(name, estimator, example, net, X_train, y_train)


def _is_fitted(estimator):
    """Whether scikit-learn takes it for fitted."""
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return False
    return True


def _fit_clone(name, estimator, example, net, X_train, y_train):
    """A clone, fitted on the rows given, or on those of a fitted method, the example, and in the same way."""
    fresh, options = clone(estimator), {}
    holds_none = getattr(estimator, "net", estimator) is None
    if X_train is not None:
        if holds_none:
            options["net"] = net_with_steps(example) if net is None and example is not None else net
        return fresh.fit(X_train, y_train, **options)
    # The rows that a method was fitted on are not those that a pipeline or a search around another one starts from.
    if example is None or not hasattr(estimator, "top_influences"):
        raise NotFittedError(
            f"{name} is not fitted: fit it, or pass X_train and y_train, the rows that a clone of it is to be fitted on"
        )
    X_train, y_train, stage = example._given
    if holds_none:
        options["net"] = net_with_steps(example) if net is None else net
        trajectory = getattr(example, "trajectory", None)
        if trajectory is not None and net is None and getattr(fresh, "trajectory", fresh) is None:
            fresh.set_params(trajectory=trajectory)
    return fresh.fit(X_train, y_train, stage=stage, **options)
