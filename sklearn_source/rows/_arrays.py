"""Tables, lists, frames and tensors as arrays."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_array
from skorch import NeuralNet
from skorch.helper import SliceDataset

from ._indexed_table import is_indexed_table
from ._loader import opened_loader
from ._multiple_inputs import has_multiple_inputs
from ._numeric_targets import numeric_targets, refuse_dates


def as_arrays(net: NeuralNet, X: Any, y: Any) -> tuple[Any, Any]:
    """``X, y`` as arrays where they are tables or lists, labels of a classifier as integers.

    What only the net understands stays as it is: tensors, dicts, tuples, lists of arrays, torch Datasets, and frames
    whose columns the module takes by name.

    Parameters
    ----------
    net : skorch.NeuralNet
        Trained or not.
    X, y : as ``net.fit`` takes them; either may be None

    Returns
    -------
    X, y

    Raises
    ------
    ValueError
        If rows differ in length, targets are no numbers, or a DataLoader leaves rows out.
    """
    X, y = opened_loader(X), numeric_targets(net, to_numpy(list_to_array(y, "y")))
    if X is None or not is_array_like(net, X):
        return X, y
    X = list_to_array(X, "X")
    if hasattr(X, "iloc"):
        X = _writable(check_array(X, dtype="numeric", ensure_2d=False, allow_nd=True, ensure_all_finite=False))
        refuse_dates(X, "X")
    return X, y


def list_to_array(data: Any, name: str) -> Any:
    """A list, or skorch's SliceDataset, as an array, all else as it came.

    Parameters
    ----------
    data : object
    name : str
        What the error calls it.

    Raises
    ------
    ValueError
        If rows of a list differ in length, or are dates.
    """
    if isinstance(data, SliceDataset):  # says of itself that it has one axis, whatever its rows have
        return np.asarray(data)
    if not isinstance(data, list):
        refuse_dates(data, name)
        return data
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise ValueError(
            f"expected rows of one length in {name}, got lists of different lengths: pad them as in training, or pass "
            "a torch Dataset to a net with an iterator_train__collate_fn that pads"
        ) from error
    refuse_dates(array, name)
    return array


def is_array_like(net: NeuralNet, X: Any) -> bool:
    """Whether X is one array or table, rather than something that only the net understands."""
    if isinstance(X, (torch.Tensor, torch.utils.data.Dataset, Mapping, tuple)) or has_multiple_inputs(X):
        return False
    if is_indexed_table(X):
        return False
    return not (hasattr(X, "columns") and _takes_columns(net, X.columns))


def _takes_columns(net, columns):
    """Whether the module's ``forward`` names every column, which is how skorch hands it the columns of a frame."""
    module = getattr(net, "module_", None) or net.module
    try:
        parameters = inspect.signature(module.forward).parameters
    except (AttributeError, TypeError, ValueError):  # a factory of modules
        return False
    return set(map(str, columns)) <= set(parameters)


def to_numpy(data: Any) -> Any:
    """A frame or tensor as an array, bfloat16 as float32; all else as it came."""
    if isinstance(data, torch.Tensor):
        return data.float().numpy(force=True) if data.dtype == torch.bfloat16 else data.numpy(force=True)
    return _writable(data.to_numpy()) if hasattr(data, "iloc") else data


def _writable(array):
    """A frame shows its values in arrays that torch warns of, as nobody may write into them."""
    return array if array.flags.writeable else array.copy()
