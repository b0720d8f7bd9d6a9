"""The rows that a Dataset yields: their fingerprints, read without a trace."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable, Iterator, Mapping
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset

from ..utils._digest import bytes_digest
from ..utils._random import generators_kept
from ..utils._tree import map_tensors
from ._dataset_rows import collated
from ._loader import collate_of
from ._table_hashes import named_hashes, pair_hashes
from ._tensors import as_tensors

_MAX_ROWS, _MAX_BYTES = 8192, 32 << 20  # of a Dataset that is read in whole: well under a second
_N_SAMPLED = 64


def sampled_rows(n_rows: int, n_sampled: int = _N_SAMPLED) -> np.ndarray:
    """A few of the rows of a data set, the same ones for the same number of rows: sorted ndarray of int64."""
    if n_rows <= n_sampled:
        return np.arange(n_rows)
    return np.sort(np.random.default_rng(n_rows).choice(n_rows, n_sampled, replace=False))


@contextlib.contextmanager
def undisturbed(dataset: Any) -> Iterator[None]:
    """Put all generators of random numbers back afterwards: the global ones, and those that a Dataset holds."""
    own = list(_generators(dataset))
    states = [_state(generator) for generator in own]
    with generators_kept(cuda=torch.cuda.is_initialized()):
        try:
            yield
        finally:
            for generator, state in zip(own, states):
                _set_state(generator, state)


def yielded_hashes(dataset, hash_array, *, sample, collate=None):
    """Fingerprints of what a Dataset yields, those of the arrays that its rows make.

    A shallow copy is read, so that a file it opens at its first reading is opened anew by the workers of a loader.

    Parameters
    ----------
    dataset : Dataset
    hash_array : callable
        From an array of rows to hashes, or None.
    sample, collate
        As in :func:`row_hashes`. A loader's own function comes first.

    Returns
    -------
    hashes : ndarray of uint64, shape (n,), or None
        None where it is too large, its rows change at each reading, or they are of no known kind.
    has_targets : bool
    """
    if isinstance(dataset, IterableDataset):
        return None, False
    try:
        with undisturbed(dataset):
            return _read_and_hash(_shallow(dataset), hash_array, sample, collate_of(dataset) or collate)
    except Exception:  # other people's code: training, or fit, will say what is wrong with it
        return None, False


def _read_and_hash(dataset, hash_array, sample, collate):
    n_rows = len(dataset)
    looked_at = sampled_rows(n_rows)
    items = told_apart(_items(dataset, looked_at), collate)
    has_targets = isinstance(items[0], (tuple, list)) and len(items[0]) == 2
    some = item_hashes(items, hash_array)
    whole = n_rows <= _MAX_ROWS and n_rows * _n_bytes(items[0]) <= _MAX_BYTES
    if some is None or not (whole or sample):
        return None, has_targets
    again = np.arange(n_rows) if whole else looked_at
    hashes = item_hashes(told_apart(_items(dataset, again), collate), hash_array)
    if hashes is None or not np.array_equal(hashes[looked_at] if whole else hashes, some):
        return None, has_targets  # they change at each reading
    if whole:
        return hashes, has_targets
    known = np.zeros(n_rows, dtype=np.uint64)
    known[looked_at] = hashes
    return known, has_targets


def _items(dataset, index):
    many = getattr(dataset, "__getitems__", None)
    return many(index.tolist()) if many else [dataset[i] for i in index.tolist()]


def told_apart(items: list[Any], collate: Callable | None) -> list[Any]:
    """Rows as they are known by: pairs as they come; of others, what the collate function makes of each of them.

    Parameters
    ----------
    items : list
        Of at least one row.
    collate : callable or None
        None: as they come, which is what torch's own makes of them.
    """
    if collate is None or _is_row(items[0]):
        return items
    pairs = [collated([item], collate) for item in items]
    rows = [[map_tensors(_first, as_tensors(part)) for part in pair if part is not None] for pair in pairs]
    return [tuple(row) for row in rows]


def _is_row(item):
    return isinstance(item, (tuple, list)) and len(item) in (1, 2)


def _first(tensor):
    return tensor[0] if tensor.ndim else tensor


def item_hashes(items, hash_array):
    """Fingerprints of rows given one by one, None where they are of no known kind."""
    first = items[0]
    if _is_row(first):
        parts = [_hash_parts([item[i] for item in items], hash_array) for i in range(len(first))]
        return parts[0] if len(parts) == 1 else pair_hashes(*parts)
    return _hash_parts(items, hash_array)


def _hash_parts(parts, hash_array):
    """Fingerprints of one part (the input, a target) of each row."""
    first = parts[0]
    if isinstance(first, Mapping):
        names = {name: [part[name] for part in parts] for name in first}
        return named_hashes(names, lambda values: _hash_parts(values, hash_array))
    if isinstance(first, (tuple, list)) and not all(isinstance(value, Number) for value in first):
        names = {str(i): [part[i] for part in parts] for i in range(len(first))}
        return named_hashes(names, lambda values: _hash_parts(values, hash_array))
    if isinstance(first, (str, bytes)):
        contents = [part.encode() if isinstance(part, str) else part for part in parts]
        return np.array([int(bytes_digest(content)[:16], 16) for content in contents], dtype=np.uint64)
    if first is None:
        return np.zeros(len(parts), dtype=np.uint64)
    arrays = [part.detach().cpu() if isinstance(part, torch.Tensor) else np.asarray(part) for part in parts]
    if len({array.shape for array in arrays}) == 1:
        together = torch.stack(arrays) if isinstance(arrays[0], torch.Tensor) else np.stack(arrays)
        return hash_array(together)
    each = [hash_array(array[None]) for array in arrays]  # rows of different lengths
    return None if any(part is None for part in each) else np.concatenate(each)


def _n_bytes(item):
    """Size of the numbers and texts of a row, at least a kilobyte: reading a row has a price of its own."""
    if isinstance(item, Mapping):
        return max(1024, sum(map(_n_bytes, item.values())))
    if isinstance(item, (tuple, list)):
        return max(1024, sum(map(_n_bytes, item)))
    return max(1024, getattr(item, "nbytes", 0), len(item) if isinstance(item, (str, bytes)) else 0)


def _shallow(dataset):
    """A copy of a Dataset, and of those inside it: what it notes down when it is read stays in the copy."""
    dataset = copy.copy(dataset)
    for name in ("dataset", "datasets"):
        inner = vars(dataset).get(name)
        if isinstance(inner, torch.utils.data.Dataset):
            setattr(dataset, name, _shallow(inner))
        elif isinstance(inner, list) and inner and isinstance(inner[0], torch.utils.data.Dataset):
            setattr(dataset, name, [_shallow(each) for each in inner])
    return dataset


def _generators(value, depth=4):
    """Generators of random numbers in the attributes of an object, and of what it holds."""
    if isinstance(value, (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)):
        yield value
    elif depth and not isinstance(value, (type, np.ndarray, torch.Tensor)):
        inner = value if isinstance(value, (list, tuple)) and len(value) < 100 else getattr(value, "__dict__", {})
        for item in list(inner.values() if isinstance(inner, dict) else inner):
            yield from _generators(item, depth - 1)


def _state(generator):
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.getstate() if isinstance(generator, random.Random) else generator.get_state()


def _set_state(generator, state):
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)
