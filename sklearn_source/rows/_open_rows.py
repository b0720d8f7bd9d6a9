"""What ``fit`` and the methods are given, once it is known which rows there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import FunctionType, MethodType
from typing import Any

from skorch import NeuralNet
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from ..utils._compat_webdataset import makes_batches
from ._loader import collate_of, opened_loader
from ._row_stream import RowStream
from ._stream_readers import BatchReader, RowReader
from ._yielded_rows import undisturbed


def open_rows(net: NeuralNet, X: Any, y: Any = None, iterator: str = "iterator_train") -> Any:
    """``X`` with loaders and streams as data sets; anything else as it came.

    A DataLoader over a map-style Dataset is that Dataset. A torch IterableDataset gives rows, as to ``net.fit``, or
    batches, where the net's loader would not collate them (``batch_size=None``) or a pipeline of webdataset makes them;
    any other loader, or object that can be iterated over again and again, gives batches.

    Parameters
    ----------
    net : skorch.NeuralNet
        Asked how rows are collated.
    X, y : as the methods take them
    iterator : {"iterator_train", "iterator_valid"}
        By which of the net's iterators.

    Returns
    -------
    X : the same, Dataset or RowStream
        Of a stream after one pass over it.

    Raises
    ------
    TypeError
        If it is an iterator, which gives its rows once, or what makes rows when it is called.
    ValueError
        If a loader leaves rows out, a stream gives no rows, or ``y`` is given beside one.
    """
    X = opened_loader(X)
    require_rows(X)
    if isinstance(X, RowStream) or not is_stream(X):
        return X
    is_rows = isinstance(X, IterableDataset)
    if isinstance(X, Iterator) and not is_rows:
        raise TypeError(
            f"expected rows that can be read several times, got a {type(X).__name__}, which gives them once: wrap what "
            "makes it in a class whose __iter__ starts anew, or write the rows to a file of an array (numpy.memmap)"
        )
    if y is not None:
        raise ValueError(
            f"expected y=None beside a {type(X).__name__}, as the targets of a stream come with its rows, got y: let "
            "the stream give pairs (X, y)"
        )
    if is_rows and not _gives_batches(net, X, iterator):
        return RowStream(RowReader(X, collate_of_net(net, iterator) or default_collate))
    return RowStream(BatchReader(X))


def collate_of_net(net: NeuralNet, iterator: str = "iterator_train") -> Callable | None:
    """How a net puts rows into batches, None for torch's own way: see :func:`row_hashes`."""
    return net.get_params_for(iterator).get("collate_fn")


def brings_rows(X: Any) -> bool:
    """Whether rows are asked for one by one or in batches, as of data sets, loaders and streams; they are no table."""
    return isinstance(X, (Dataset, DataLoader)) or _is_plain_stream(X)


def is_stream(X: Any) -> bool:
    """Whether rows come one after the other, so that none can be asked for by its place."""
    X = opened_loader(X)
    return isinstance(X, (RowStream, IterableDataset, DataLoader)) or _is_plain_stream(X)


def known_rows(net: NeuralNet, X: Any) -> Any:
    """What a net is about to be trained on: of an IterableDataset its RowStream, anything else as it came.

    Neither the global generators of random numbers nor those that the dataset holds move.

    Parameters
    ----------
    net : skorch.NeuralNet
    X : as ``net.fit`` takes it
    """
    if not isinstance(X, IterableDataset):
        return X
    with undisturbed(X):
        opened = open_rows(net, X)
    return opened


def require_rows(X: Any, name: str = "rows") -> None:
    """Refuse what makes rows when it is called.

    Parameters
    ----------
    X : object
    name : str
        What the error calls it.

    Raises
    ------
    TypeError
        If it is a function, a method or a class.
    """
    if isinstance(X, (FunctionType, MethodType, type)):
        kind = "class" if isinstance(X, type) else "function"
        raise TypeError(
            f"expected {name}, got the {kind} {X.__qualname__}: pass an object of a class whose __iter__ starts anew, "
            "or arrays"
        )


def require_trainable(net: NeuralNet, X: Any) -> None:
    """Refuse rows that the net's own training would read otherwise than attribution does.

    Parameters
    ----------
    net : skorch.NeuralNet
        Not trained yet.
    X : as ``net.fit`` takes it, or from :func:`open_rows`

    Raises
    ------
    TypeError
        If they are a stream, or what makes rows when it is called.
    ValueError
        If they came by a DataLoader whose collate function the net does not have.
    """
    require_rows(X)
    if is_stream(X):
        raise TypeError(
            "expected rows that a network can be trained on here, arrays or a map-style Dataset, got a stream: pass "
            "the rows so, or train the net yourself and fit a method that trains none, est.fit(net, stream, None)"
        )
    collate = collate_of(opened_loader(X))
    if collate is not None and collate_of_net(net) is not collate:
        raise ValueError(
            "expected rows that the net collates by itself, got a DataLoader with a collate_fn of its own: pass "
            "loader.dataset, and give the net iterator_train__collate_fn"
        )


def _gives_batches(net, stream, iterator):
    """Whether items of an IterableDataset are batches already."""
    size = net.get_params_for(iterator).get("batch_size", net.batch_size)
    return size is None or makes_batches(stream)


def _is_plain_stream(X):
    """Whether this is an iterable that is no container; a lazy column of a stream takes names, but has no length."""
    is_container = hasattr(X, "__getitem__") and hasattr(X, "__len__")
    return isinstance(X, Iterable) and not (is_container or hasattr(X, "shape") or isinstance(X, (set, frozenset)))
