"""From what ``fit`` takes to validated rows."""

from __future__ import annotations

from numbers import Number
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from torch.utils.data import DataLoader, IterableDataset, default_collate

from ._array_rows import ArrayRows, arrays_of
from ._count import count_rows
from ._dataset_rows import DatasetRows
from ._loader import collate_of, opened_loader
from ._row_stream import RowStream
from ._rows import Rows
from ._stream_rows import StreamRows

_NO_STREAM = (
    "expected a dataset with length and item access, got a {}: rows of a stream are read by fit(net, stream, None) of "
    "a trained net and by its methods for queries alone; here, pass a map-style Dataset or arrays (a numpy.memmap, "
    "where they do not fit in memory)"
)


def prepare_rows(
    net: NeuralNet,
    X: Any,
    y: Any = None,
    iterator: str = "iterator_train",
    *,
    device: torch.device,
    dtype: torch.dtype,
    integer_targets: torch.dtype | None = None,
) -> Rows:
    """Validated rows of what a skorch net's ``fit`` takes. See :meth:`Network.prepare`.

    Parameters
    ----------
    net : skorch.NeuralNet
        Asked for ``get_dataset`` and the ``collate_fn`` of that iterator.
    X, y
        As in ``fit``.
    iterator : {"iterator_train", "iterator_valid"}
        By which of the net's iterators items are collated: rows are read as in training, queries as in ``predict``.
    device : torch.device
    dtype : torch.dtype
        What floating-point inputs and targets become.
    integer_targets : torch.dtype, optional
        What integer targets become.

    Returns
    -------
    Rows
    """
    if X is None:
        raise ValueError("expected data in X, got None")
    options = {"device": device, "dtype": dtype, "integer_targets": integer_targets}
    if isinstance(X, RowStream):
        return StreamRows(X, **options)
    X = opened_loader(X)
    if isinstance(X, DataLoader):
        raise TypeError(_NO_STREAM.format("DataLoader"))
    given = isinstance(X, torch.utils.data.Dataset)
    if not given:
        X, y = _dense_lists(X), _dense_lists(y)
        _check_lengths(X, y)
    for name, data in (("X", X), ("y", y)):
        if data is not None and not hasattr(data, "__getitem__"):
            raise ValueError(f"expected {name} as rows that can be taken one by one, got a {type(data).__name__}")
    try:
        dataset = net.get_dataset(X, y)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"expected X and y as net.fit takes them, got a {type(X).__name__} and a {type(y).__name__}, which the net "
            f"can make no dataset of ({error})"
        ) from error
    if isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise TypeError(_NO_STREAM.format(type(dataset).__name__))
    if len(dataset) == 0:
        raise ValueError("expected at least one row, got X with 0 rows")
    collate = _collate_fn(net, dataset, iterator)
    arrays = arrays_of(dataset) if collate is None else None
    rows: Rows
    if arrays is not None:
        rows = ArrayRows(*arrays, len(dataset), **options)
    else:
        rows = DatasetRows(dataset, collate or default_collate, **options)
    if given and y is not None and not rows.has_y:
        raise ValueError("X is a dataset without targets, and beside a dataset y is ignored: put y into the dataset")
    return rows


def _dense_lists(data):
    """A plain list of numbers as an array; everything else as it came."""
    if isinstance(data, (list, tuple)) and data and all(isinstance(v, (Number, str, np.generic)) for v in data):
        return np.asarray(data)
    return data


def _check_lengths(X, y):
    try:
        n = count_rows(X, as_skorch=True)
    except ValueError:
        raise ValueError("expected arrays of the same number of rows in X, got different numbers") from None
    if y is None:
        return
    try:
        n_y = count_rows(y, as_skorch=True)
    except ValueError:
        raise ValueError("expected arrays of the same number of rows in y, got different numbers") from None
    if None not in (n, n_y) and n != n_y:  # skorch refuses what cannot be counted
        raise ValueError(f"expected as many targets as rows, got X with {n} rows and y with {n_y}")


def _collate_fn(net, dataset, iterator):
    """What puts items into a batch, None for torch's own way: the net's, or that of the loader the rows came by."""
    own, loaders = net.get_params_for(iterator).get("collate_fn"), collate_of(dataset)
    if None not in (own, loaders) and own is not loaders:
        raise ValueError(
            f"expected one function that collates rows, got two, that of the DataLoader and the net's "
            f"{iterator}__collate_fn: pass the dataset itself (loader.dataset), to have them collated as in training"
        )
    return own or loaders
