"""Tables whose rows are dicts, asked for by their places: Hugging Face's data sets of the map style."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset


def is_indexed_table(X: Any) -> bool:
    """Whether rows of named columns are read by their places, from an object that is no torch Dataset.

    skorch reads it as any container: ``X[i]`` is a dict, the inputs of the module by name.
    """
    return not isinstance(X, Dataset) and all(hasattr(X, name) for name in ("__getitems__", "column_names", "select"))
