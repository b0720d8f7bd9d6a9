"""Where the rows are in what a function sees."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RowLayout:
    """Where the rows of a batch are in what a function sees, rows and positions flattened together or not.

    Attributes
    ----------
    n_rows : int
        B.
    rows_first : bool
        Whether rows come before positions, (B, T, ...), or after them, (T, B, ...), as inside attention.
    """

    n_rows: int
    rows_first: bool = True

    def split(self, x):
        """(B * k, ...) or (k * B, ...), the first axes of ``x`` flattened already, as (B, k, ...)."""
        if len(x) % self.n_rows:
            raise ValueError(
                f"a batch of {self.n_rows} rows has {len(x)} positions here, so that it is not known which belong to "
                "which row. Use layers= to leave this parameter out"
            )
        if self.rows_first:
            return x.reshape(self.n_rows, -1, *x.shape[1:])
        return x.reshape(-1, self.n_rows, *x.shape[1:]).transpose(0, 1)
