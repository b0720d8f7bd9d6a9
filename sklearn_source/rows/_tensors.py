"""Arrays as tensors, and what no network can read refused."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Number

import numpy as np
import torch
from scipy import sparse

_CHUNK = 1 << 20  # numbers looked at together for NaN: bounds the memory of the check


def check_numbers(tree, name, dtype, where=""):
    """Refuse text, NaN and what is infinite, or becomes so in the module's dtype."""
    if isinstance(tree, (dict, list)):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            check_numbers(value, f"{name}[{key!r}]", dtype, where)
        return
    leaf = tree.data if sparse.issparse(tree) else tree
    if isinstance(leaf, np.ndarray) and leaf.dtype.kind not in "biufc":
        hint = "encode labels as integers 0, 1, ... as in training" if name[0] == "y" else "encode it as in training"
        raise ValueError(f"expected numbers in {name}, got dtype {leaf.dtype}: {hint}")
    if isinstance(leaf, torch.Tensor) and leaf.layout != torch.strided:
        raise ValueError(f"expected a dense tensor in {name}, got layout {leaf.layout}: call .to_dense()")
    floating = leaf.is_floating_point() if isinstance(leaf, torch.Tensor) else getattr(leaf, "dtype", None)
    if not isinstance(leaf, torch.Tensor):
        floating = floating is not None and floating.kind == "f"
    if not floating or leaf.ndim == 0:
        return
    step = max(1, _CHUNK // max(1, int(np.prod(leaf.shape[1:], dtype=int))))
    for start in range(0, len(leaf), step):
        # Converted first: 1e300 is finite in float64 and infinite in a float32 network.
        chunk = _tensor(leaf, slice(start, start + step)).to(dtype)
        if not torch.isfinite(chunk).all():
            what = "NaN" if chunk.isnan().any() else f"infinity or a value too large for {dtype}"
            raise ValueError(f"Input {name} contains {what}{where}: remove or impute it before fitting the network")


def pick(tree, index):
    if tree is None:
        return None
    if isinstance(tree, dict):
        return {key: pick(value, index) for key, value in tree.items()}
    if isinstance(tree, list):
        return [pick(value, index) for value in tree]
    return _tensor(tree, index)


def _tensor(leaf, index):
    """Rows of an array as a tensor with memory of its own: a module may write into its input."""
    if sparse.issparse(leaf):
        return torch.from_numpy(leaf[index].toarray())
    if isinstance(leaf, torch.Tensor):
        rows = leaf.detach()[index if isinstance(index, slice) else torch.from_numpy(index).to(leaf.device)]
        return rows.clone() if isinstance(index, slice) else rows
    rows = leaf[index]
    return torch.from_numpy(np.array(rows, order="C") if isinstance(index, slice) else rows)


def tensors(tree):
    """What a collate function gave, arrays and numbers turned into tensors."""
    if isinstance(tree, Mapping):
        return {key: tensors(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [tensors(value) for value in tree]
    return torch.as_tensor(tree) if isinstance(tree, (np.ndarray, np.generic, Number)) else tree
