"""Where the rows are in what a function sees."""

from __future__ import annotations


def split_rows(x, n_rows, rows_first):
    """(B * k, ...) or (k * B, ...), the first axes of ``x`` flattened already, as (B, k, ...)."""
    if len(x) % n_rows:
        raise ValueError(
            f"a batch of {n_rows} rows has {len(x)} positions here, so that it is not known which belong to which row. "
            "Use layers= to leave this parameter out"
        )
    if rows_first:
        return x.reshape(n_rows, -1, *x.shape[1:])
    return x.reshape(-1, n_rows, *x.shape[1:]).transpose(0, 1)
