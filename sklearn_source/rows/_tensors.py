"""Arrays as tensors, and what no network can read refused."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Number

import numpy as np
import torch
from scipy import sparse

_CHUNK = 1 << 20  # numbers looked at together for NaN: bounds the memory of the check


def check_numbers(tree, name, dtype, rows=None):
    """Refuse text, NaN and what is infinite, or becomes so in the module's dtype; ``rows``: which these are."""
    if isinstance(tree, (dict, list)):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            check_numbers(value, f"{name}[{key!r}]", dtype, rows)
        return
    if isinstance(tree, (str, bytes)):
        what = f"the text {tree[:20]!r}" if isinstance(tree, str) else "undecoded bytes"
        raise ValueError(
            f"expected numbers in {name}, got {what}: encode text as in training, decode what a file holds, and leave "
            "columns out that the module does not read (a collate_fn may do each)"
        )
    array = tree.data if sparse.issparse(tree) else tree
    if isinstance(array, np.ndarray) and array.dtype.kind not in "biufc":
        hint = "encode labels as integers 0, 1, ... as in training" if name[0] == "y" else "encode it as in training"
        raise ValueError(f"expected numbers in {name}, got dtype {array.dtype}: {hint}")
    if isinstance(array, torch.Tensor) and array.layout != torch.strided:
        raise ValueError(f"expected a dense tensor in {name}, got layout {array.layout}: call .to_dense()")
    floating = array.is_floating_point() if isinstance(array, torch.Tensor) else getattr(array, "dtype", None)
    if not isinstance(array, torch.Tensor):
        floating = floating is not None and floating.kind == "f"
    if not floating or array.ndim == 0:
        return
    step = max(1, _CHUNK // max(1, int(np.prod(array.shape[1:], dtype=int))))
    for start in range(0, len(array), step):
        # Converted first: 1e300 is finite in float64 and infinite in a float32 network.
        chunk = _tensor(array, slice(start, start + step)).to(dtype)
        if not torch.isfinite(chunk).all():
            first = start + int((~chunk.isfinite()).reshape(len(chunk), -1).any(1).nonzero()[0])
            where = _row_named(tree, first, rows)
            what = "NaN" if chunk.isnan().any() else f"infinity or a value too large for {dtype}"
            raise ValueError(f"Input {name} contains {what}{where}: remove or impute it before fitting the network")


def _row_named(tree, place, rows):
    """The row of a number, for a message: nothing where it is not known."""
    if sparse.issparse(tree):  # the place is one among the numbers that are stored
        if tree.format != "csr":
            return ""
        place = int(np.searchsorted(tree.indptr, place, side="right")) - 1
    if rows is None:
        return f" (row {place})"
    return f" (row {rows[place]})" if place < len(rows) == tree.shape[0] else f" (rows {min(rows)} to {max(rows)})"


def take_tensors(tree, index):
    """Rows of arrays in dicts and lists, as tensors; `index` is a slice or an ndarray of int from 0 on."""
    if tree is None:
        return None
    if isinstance(tree, dict):
        return {key: take_tensors(value, index) for key, value in tree.items()}
    if isinstance(tree, list):
        return [take_tensors(value, index) for value in tree]
    return _tensor(tree, index)


def _tensor(array, index):
    """Rows of an array as a tensor with memory of its own: a module may write into its input."""
    if sparse.issparse(array):
        return torch.from_numpy(array[index].toarray())
    if isinstance(array, torch.Tensor):
        rows = array.detach()[index if isinstance(index, slice) else torch.from_numpy(index).to(array.device)]
        return rows.clone() if isinstance(index, slice) else rows
    rows = array[index]
    return torch.from_numpy(np.array(rows, order="C") if isinstance(index, slice) else rows)


def as_tensors(tree):
    """What a collate function gave, arrays and numbers turned into tensors."""
    if isinstance(tree, Mapping):
        return {key: as_tensors(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [as_tensors(value) for value in tree]
    if isinstance(tree, np.ndarray) and not tree.flags.writeable:
        tree = tree.copy()  # torch warns of them
    return torch.as_tensor(tree) if isinstance(tree, (np.ndarray, np.generic, Number)) else tree
