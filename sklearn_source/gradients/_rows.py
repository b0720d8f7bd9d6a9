"""Where the rows are in what a function sees."""

from __future__ import annotations


def split_rows(x, n_rows, rows_first):
    """(B * k, ...) or (k * B, ...), the first axes of ``x`` flattened already, as (B, k, ...)."""
    if rows_first:
        return x.reshape(n_rows, -1, *x.shape[1:])
    return x.reshape(-1, n_rows, *x.shape[1:]).transpose(0, 1)
