"""Give me rows i of this."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy import sparse

from ..utils._compat import safe_indexing
from ._indexed_table import is_indexed_table
from ._loader import opened_loader
from ._multiple_inputs import has_multiple_inputs


def take_rows(X: Any, index: Any) -> Any:
    """Some rows, in a container of the same kind.

    Parameters
    ----------
    X : whatever :func:`count_rows` can count
    index : array-like of int, shape (n,)
        From 0 on; in any order, and repeated if need be.

    Returns
    -------
    rows : same kind as X
        A network reads it as it does `X`. Of a Dataset, or a DataLoader over one, a ``Subset``; of a sparse matrix, one
        in CSR format; of a dict or some other mapping, a dict.
    """
    X, index = opened_loader(X), np.asarray(index, dtype=np.int64)
    if isinstance(X, Mapping):
        return {name: take_rows(part, index) for name, part in X.items()}
    if has_multiple_inputs(X):
        parts = [take_rows(part, index) for part in X]
        return parts if isinstance(X, list) else tuple(parts)
    if isinstance(X, torch.utils.data.Dataset):
        return torch.utils.data.Subset(X, index.tolist())
    if is_indexed_table(X):
        return X.select(index)
    if isinstance(X, torch.Tensor):
        return X[torch.from_numpy(index).to(X.device)]
    return safe_indexing(X.tocsr() if sparse.issparse(X) else X, index)
