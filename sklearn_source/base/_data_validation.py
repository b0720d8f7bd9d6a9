"""The data given to ``fit`` and ``transform``: what scikit-learn checks, and what goes to the net as it is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sklearn.utils import get_tags

from ..loss import needs_targets
from ..rows import is_array_like, list_to_array, numeric_targets, open_rows, to_numpy
from ..utils._compat import validate_data as sklearns_validate_data

_NOTHING = "no_validation"  # scikit-learn's word for "there is no y to look at"


def read(estimator, net, X, y, *, reset):
    """``X, y`` checked by scikit-learn where they are tables or arrays; labels of a classifier made integers.

    Tensors, dicts, tuples, lists of arrays, torch Datasets, and frames whose columns the module takes by name are left
    for the net, as skorch would read them; loaders and streams are opened.

    Parameters
    ----------
    estimator : BaseAttribution
    net : skorch.NeuralNet
    X : whatever the net's ``fit`` takes
    y : array-like, dict or tuple of these, Tensor or None
    reset : bool
        Whether this is ``fit``, which fixes the number and names of features.
    """
    if reset:  # what an earlier fit on a table learned
        for name in ("n_features_in_", "feature_names_in_"):
            vars(estimator).pop(name, None)
    X = open_rows(net, X, y, "iterator_train" if reset else "iterator_valid")
    if not is_array_like(net, X):
        if getattr(X, "ndim", 0) == 2:
            validate_data(estimator, X, skip_check_array=True, reset=reset)
        return X, numeric_targets(net, to_numpy(y))
    X, y = list_to_array(X, "X"), list_to_array(y, "y")
    options = {"allow_nd": True, "dtype": "numeric", "accept_sparse": "csr", "reset": reset}
    # Only tables have features; of images and sequences the network knows which sizes it can read.
    options["ensure_2d"] = getattr(X, "ndim", 2) <= 2 and not _has_one_number_per_row(estimator, net, X)
    y = to_numpy(y)
    if isinstance(y, (Mapping, tuple)):
        return validate_data(estimator, X, y=_NOTHING, **options), y
    if getattr(y, "ndim", 0) > 2:  # a number, or a class, at every pixel: scikit-learn knows no such targets
        return validate_data(estimator, X, y=_NOTHING, **options), numeric_targets(net, y)
    asked_for = reset and get_tags(estimator).target_tags.required and needs_targets(net)
    if y is None and not asked_for:
        return validate_data(estimator, X, y=_NOTHING, **options), None
    X, y = validate_data(estimator, X, y, multi_output=True, **options)
    return X, numeric_targets(net, y)


def validate_data(estimator, *args, **options):
    """scikit-learn's, whose advice for missing values is another estimator: here the network is what reads the rows."""
    try:
        return sklearns_validate_data(estimator, *args, **options)
    except ValueError as error:
        said = str(error).splitlines()[0]
        if "NaN" not in said and "infinity" not in said:
            raise
        raise ValueError(
            f"{said} Expected rows of finite numbers, as the network reads them: fill in what is missing, or leave "
            "such rows out, before the network is trained, and give fit and transform these rows (a Pipeline with "
            "an imputer in front does both)"
        ) from None


def require_target_shape(y, shape):
    """Refuse targets of queries, numbers of another shape than a training row's: they would broadcast in the loss.

    Parameters
    ----------
    y : whatever the net takes
    shape : tuple or None
        Of one training target, where targets were an array.
    """
    if isinstance(y, np.ndarray) and shape is not None and y.shape[1:] != shape:
        raise ValueError(
            f"expected y of the queries as in fit, shape {('n_query', *shape)}, got {y.shape}: pass one target of "
            "that shape for each query"
        )


def _has_one_number_per_row(estimator, net, X):
    """Whether X is no table that lost an axis, but ids for an embedding, or what a trained network reads."""
    if getattr(X, "ndim", 2) != 1 or hasattr(estimator, "n_features_in_"):
        return False
    return X.dtype.kind in "iu" or (X.dtype.kind == "f" and getattr(net, "initialized_", False))
