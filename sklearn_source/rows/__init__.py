"""Which row is this, how many are there, give me those."""

from __future__ import annotations

from ._array_rows import ArrayRows
from ._arrays import as_arrays, is_array_like, list_to_array, to_numpy
from ._casting import cast_like_training, cast_real
from ._changing_rows import warn_changing_rows
from ._count import count_rows
from ._draw_counter import DrawCounter
from ._draw_weights import draw_weights
from ._fingerprint import exact_row_hashes, row_hashes
from ._groups import group_masks
from ._hasher import hash_batch
from ._indices import row_indices
from ._matching import require_same_rows
from ._multiple_inputs import has_multiple_inputs
from ._numeric_targets import numeric_targets
from ._open_rows import brings_rows, collate_of_net, is_stream, known_rows, open_rows, require_rows, require_trainable
from ._prepare_rows import prepare_rows
from ._row_locator import RowLocator
from ._row_stream import RowStream
from ._rows import Rows
from ._stage_rows import match_stage_rows, rows_of_stages, warn_unused_rows
from ._take import take_rows
from ._train_split import rows_after_split
from ._truth_queries import TruthQueries
from ._truth_rows import match_truth_rows

__all__ = [
    "ArrayRows",
    "DrawCounter",
    "RowLocator",
    "RowStream",
    "Rows",
    "TruthQueries",
    "as_arrays",
    "brings_rows",
    "cast_like_training",
    "cast_real",
    "collate_of_net",
    "count_rows",
    "draw_weights",
    "exact_row_hashes",
    "group_masks",
    "has_multiple_inputs",
    "hash_batch",
    "is_array_like",
    "is_stream",
    "known_rows",
    "list_to_array",
    "match_stage_rows",
    "match_truth_rows",
    "numeric_targets",
    "open_rows",
    "prepare_rows",
    "require_rows",
    "require_same_rows",
    "require_trainable",
    "row_hashes",
    "row_indices",
    "rows_after_split",
    "rows_of_stages",
    "take_rows",
    "to_numpy",
    "warn_changing_rows",
    "warn_unused_rows",
]
