"""Which queries a network gets wrong, and which way."""

from __future__ import annotations

import numpy as np
from sklearn.utils import Bunch

from ..base import net_with_steps
from ..loss import resolve_measurement
from ..network import Network
from ._group_names import describe_errors
from ._predictions import predict_rows, require_queries

_LARGE_RESIDUAL = 0.75  # quantile beyond which the answer of a regression counts as an error


def errors_of(est, X_query, y_query):
    """Which queries are wrong, and which way rows push towards that.

    Returns
    -------
    asked : Bunch
        errors : ndarray of int, or None for all queries
        signs : ndarray (n_errors,) or None
            1 where an answer is too high, -1 where it is too low; None where more of the measurement is better.
        sizes : ndarray (n_errors,) or None
            Of the residuals, where they have a sign.
        harms_upwards : bool
            Whether what raises the measurement (times the sign) does harm.
        predictions : Bunch or None
    """
    net = net_with_steps(est)
    if y_query is None or net is None:
        return Bunch(errors=None, signs=None, sizes=None, harms_upwards=y_query is None, predictions=None)
    require_queries(est, X_query, y_query)
    predictions = predict_rows(net, X_query, y_query)
    if predictions.is_classification:
        errors = np.flatnonzero(predictions.target != predictions.predicted)
        return Bunch(errors=errors, signs=None, sizes=None, harms_upwards=False, predictions=predictions)
    name = measurement_of(est)
    residual = None if predictions.target is None else predictions.predicted - predictions.target
    if name == "prediction" and residual is not None and residual.ndim > 1:
        output = getattr(est, "output", None)
        residual = residual[:, output] if isinstance(output, int) else None
    if residual is None or residual.ndim > 1 or name != "prediction":
        size, signs = predictions.loss, None
    else:
        size, signs = np.abs(residual), np.sign(residual)
    errors = np.flatnonzero((size >= np.quantile(size, _LARGE_RESIDUAL)) & (size > 0))
    signs, sizes = (None, None) if signs is None else (signs[errors], size[errors])
    return Bunch(errors=errors, signs=signs, sizes=sizes, harms_upwards=signs is not None, predictions=predictions)


def measurement_of(est):
    """The name of what the scores are about, None for a function of the user's."""
    name = getattr(est, "measurement", None)
    if name == "auto":
        name = resolve_measurement(name, Network.from_net(est.net_)).name
    return name if isinstance(name, str) else None


def error_words(asked, errors, signs, class_names):
    """What the errors are, and which class is taken for which: str."""
    if asked.predictions is None:
        return "queries"
    if not asked.predictions.is_classification:
        if asked.signs is None:
            return "large losses"
        return "answers that are too high" if signs[0] > 0 else "answers that are too low"
    words = describe_errors(asked.predictions.target[errors], asked.predictions.predicted[errors], class_names)
    return f"errors ({words})" if words else "errors"
