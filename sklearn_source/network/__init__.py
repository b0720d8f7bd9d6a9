"""The only reader of a skorch net: its module, its rows, the loss of each row, what it predicts."""

from __future__ import annotations

from ._fastpath import mha_fastpath_off
from ._measurement import Measurement, resolve_measurement
from ._network import Network
from ._rows import Rows

__all__ = ["Measurement", "Network", "Rows", "mha_fastpath_off", "resolve_measurement"]
