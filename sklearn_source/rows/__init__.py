"""Which row is this, how many are there, give me those."""

from __future__ import annotations

from ._containers import as_read, checked_targets, like_training, opened, reads_as_array, rectangular, several_inputs
from ._count import n_rows_of
from ._fingerprint import row_hashes
from ._rows import ArrayRows, Rows, prepare_rows
from ._stage_rows import credited_rows, warn_unused
from ._train_split import trained_rows
from ._truth_queries import KnownQueries, number_of_rows
from ._truth_rows import places_of_rows

__all__ = [
    "ArrayRows",
    "KnownQueries",
    "Rows",
    "as_read",
    "checked_targets",
    "credited_rows",
    "like_training",
    "n_rows_of",
    "number_of_rows",
    "opened",
    "places_of_rows",
    "prepare_rows",
    "reads_as_array",
    "rectangular",
    "row_hashes",
    "several_inputs",
    "trained_rows",
    "warn_unused",
]
