"""The only reader of a skorch net: its module, its rows, the loss of each row, what it predicts."""

from __future__ import annotations

from ._containers import as_read, checked_targets, like_training, opened, reads_as_array, rectangular, several_inputs
from ._fastpath import mha_fastpath_off
from ._measurement import Measurement, resolve_measurement
from ._network import Network
from ._readable import outputs_of, read_training_rows, require_readable, row_form
from ._rows import ArrayRows, Rows, prepare_rows
from ._targets import TargetError

__all__ = [
    "ArrayRows",
    "Measurement",
    "Network",
    "Rows",
    "TargetError",
    "as_read",
    "checked_targets",
    "like_training",
    "mha_fastpath_off",
    "opened",
    "outputs_of",
    "prepare_rows",
    "read_training_rows",
    "reads_as_array",
    "rectangular",
    "require_readable",
    "resolve_measurement",
    "row_form",
    "several_inputs",
]
