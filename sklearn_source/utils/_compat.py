"""The one home of what moved between releases of scikit-learn or is private to it; for torch and skorch see beside."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np
from sklearn.base import _fit_context as fit_context
from sklearn.frozen import FrozenEstimator
from sklearn.utils import _safe_indexing as safe_indexing
from sklearn.utils._param_validation import Interval as _Interval
from sklearn.utils._param_validation import StrOptions
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.validation import _num_samples as num_samples
from sklearn.utils.validation import validate_data


class Interval(_Interval):
    """scikit-learn's, for which True is the number 1, and infinity in what has no upper end."""

    def is_satisfied_by(self, val):
        if isinstance(val, bool) or isinstance(val, Real) and self.right is None and val == np.inf:
            return False
        return super().is_satisfied_by(val)


# Numbers of processes as joblib counts them.
WORKERS = (None, Interval(Integral, 1, None, closed="left"), Interval(Integral, None, -1, closed="right"))


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
    "WORKERS",
    "fit_context",
    "num_samples",
    "output_container",
    "safe_indexing",
    "validate_data",
    "validate_parameters",
]
