"""How many rows is this?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from skorch.dataset import get_len

from ..utils._compat import num_samples
from ._loader import opened_loader
from ._multiple_inputs import has_multiple_inputs


def count_rows(X: Any, *, as_skorch: bool = False) -> int | None:
    """Number of rows, whatever container holds them.

    Parameters
    ----------
    X : array, tensor, DataFrame, sparse matrix, Dataset, list of rows or of texts, or dict, tuple or list of inputs
    as_skorch : bool, default=False
        Count as ``net.fit`` does, to which any list is one of inputs. Elsewhere a list holds rows, unless all that is
        in it has two axes or more.

    Returns
    -------
    n_rows : int or None
        None where nobody can tell: of a stream of rows, of None, or of a single text.

    Raises
    ------
    ValueError
        If the inputs have different numbers of rows.
    """
    try:
        if X is None or isinstance(X, (str, bytes)):  # one text, whose characters are no rows
            return None
        X = opened_loader(X)
        if isinstance(X, torch.utils.data.DataLoader):  # its length is one of batches
            return None
        if as_skorch:
            return get_len(X)
        if isinstance(X, Mapping) or has_multiple_inputs(X):
            counts = {count_rows(part) for part in (X.values() if isinstance(X, Mapping) else X)}
            if len(counts) != 1:
                raise ValueError("Dataset does not have consistent lengths.")  # as skorch says it
            return counts.pop()
        count = len if isinstance(X, torch.utils.data.Dataset) else num_samples
        return count(X)
    except TypeError:  # a stream of rows
        return None
