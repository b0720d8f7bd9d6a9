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

    def of(self, use):
        """The layout of what one use saw."""
        return self

    def presence(self, length):
        """(B, T), zero where ``split`` of ``length`` filled up a row that has fewer; None where all have as many."""
        return None

    def split_groups(self, x, arrange):
        """(k, n, ...) vectors of k groups, the n rows and positions flattened, as (B, k, T, ...).

        ``arrange`` brings the gradient of what came out into the axes of ``x``: a layout may look at it.
        """
        return self.split(x.transpose(0, 1)).transpose(1, 2)

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
