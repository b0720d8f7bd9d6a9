"""Tables, lists and labels, as the attribution methods and retraining hand them to a net."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import numpy as np
import torch
from scipy import sparse
from sklearn.utils import check_array
from skorch import NeuralNetClassifier


def as_read(net, X, y):
    """``X, y`` as the attribution methods read them: tables and lists as arrays, labels of a classifier as integers.

    What only the net understands stays as it is: tensors, dicts, tuples, lists of arrays, torch Datasets, and frames
    whose columns the module takes by name.
    """
    y = checked_targets(net, opened(rectangular(y, "y")))
    if X is None or not reads_as_array(net, X):
        return X, y
    X = rectangular(X, "X")
    if hasattr(X, "iloc"):
        X = _writable(check_array(X, dtype="numeric", ensure_2d=False, allow_nd=True, ensure_all_finite=False))
    return X, y


def _writable(array):
    """A frame shows its values in arrays that torch warns of, as nobody may write into them."""
    return array if array.flags.writeable else array.copy()


def rectangular(data, name):
    """Lists as arrays, unless their rows differ in length."""
    if not isinstance(data, list):
        return data
    try:
        return np.asarray(data)
    except ValueError as error:
        raise ValueError(
            f"expected rows of one length in {name}, got lists of different lengths: pad them as in training, or pass "
            "a torch Dataset to a net with an iterator_train__collate_fn that pads"
        ) from error


def reads_as_array(net, X):
    """Whether X is one array or table, rather than something that only the net understands."""
    if isinstance(X, (torch.Tensor, torch.utils.data.Dataset, Mapping, tuple)):
        return False
    if several_inputs(X):
        return False
    return not (hasattr(X, "columns") and _takes_columns(net, X.columns))


def several_inputs(X):
    """Whether a list holds one array per input of the net, rather than one row after the other."""
    return isinstance(X, list) and bool(X) and all(getattr(part, "ndim", 0) >= 2 for part in X)


def _takes_columns(net, columns):
    """Whether the module's ``forward`` names every column, which is how skorch hands it the columns of a frame."""
    module = getattr(net, "module_", None) or net.module
    try:
        parameters = inspect.signature(module.forward).parameters
    except (AttributeError, TypeError, ValueError):  # a factory of modules
        return False
    return set(map(str, columns)) <= set(parameters)


def opened(y):
    """Targets as skorch takes them: frames and tensors as arrays."""
    if isinstance(y, torch.Tensor):
        return y.float().numpy(force=True) if y.dtype == torch.bfloat16 else y.numpy(force=True)
    return _writable(y.to_numpy()) if hasattr(y, "iloc") else y


def checked_targets(net, y):
    """Numbers, and integers where they are class labels."""
    if isinstance(y, list):
        y = np.asarray(y)
    if not isinstance(y, np.ndarray):
        return y
    if y.dtype.kind not in "biufc":
        try:
            y = y.astype(np.float64)
        except (TypeError, ValueError):
            raise ValueError(
                f"Unknown label type: expected numbers in y, got {y.dtype} such as {y.flat[0]!r}: encode labels as "
                "integers 0 to n_classes - 1, as the network was trained (LabelEncoder does)"
            ) from None
    if isinstance(net, NeuralNetClassifier) and y.ndim == 1 and y.dtype.kind in "biuf":
        if y.dtype.kind == "f" and not np.array_equal(y, y.round()):
            raise ValueError(
                "Unknown label type: expected class labels 0 to n_classes - 1 for a NeuralNetClassifier, got fractions "
                "in y: pass the labels that the network was trained on, or attribute a NeuralNetRegressor"
            )
        return y.astype(np.int64)
    return y


def like_training(X, y, form, y_shape):
    """Queries in the kind of numbers, and targets in the shape, that the training rows had.

    Parameters
    ----------
    X, y : from :func:`as_read`, or checked by scikit-learn
    form : from :func:`row_form`, of the training rows
    y_shape : tuple or None
        Shape of one training target, where targets were an array.
    """
    if isinstance(form, tuple) and (isinstance(X, np.ndarray) or sparse.issparse(X)):
        integers = X.dtype.kind in "iub"
        if form[1] and integers:
            X = X.astype(np.float32)
        elif not form[1] and not integers:
            if not np.array_equal(X, np.round(X)):
                raise ValueError(f"expected integers in X, as in fit, got {X.dtype} with fractions")
            X = X.astype(np.int64)
    if isinstance(y, np.ndarray) and y_shape is not None and y.shape[1:] != y_shape and len(y):
        if y[0].size == int(np.prod(y_shape)):
            y = y.reshape(len(y), *y_shape)
    return X, y
