"""The one home of what moved between releases of scikit-learn or is private to it; for torch and skorch see beside."""

from __future__ import annotations

from sklearn.base import _fit_context as fit_context
from sklearn.frozen import FrozenEstimator
from sklearn.utils import _safe_indexing as safe_indexing
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.validation import _num_samples as num_samples
from sklearn.utils.validation import validate_data


def validate_parameters(estimator):
    """Hold an estimator's parameters against its ``_parameter_constraints``; ValueError where one does not fit."""
    estimator._validate_params()


def output_container(estimator):
    """The container that ``set_output``, or scikit-learn's configuration, asks for: "default", "pandas", ..."""
    return _get_output_config("transform", estimator)["dense"]


__all__ = [
    "FrozenEstimator",
    "Interval",
    "StrOptions",
    "fit_context",
    "num_samples",
    "output_container",
    "safe_indexing",
    "validate_data",
    "validate_parameters",
]
