"""The only reader of a skorch net: its module, its rows, the loss of each row, what it predicts."""

from __future__ import annotations

from ._fastpath import mha_fastpath_off
from ._measurement import Measurement, resolve_measurement
from ._network import Network
from ._rows import ArrayRows, Rows, prepare_rows

__all__ = [
    "ArrayRows",
    "Measurement",
    "Network",
    "Rows",
    "mha_fastpath_off",
    "prepare_rows",
    "resolve_measurement",
]
