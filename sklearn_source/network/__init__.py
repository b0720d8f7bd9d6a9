"""The only reader of a skorch net: a private copy of it, its forward pass, what it can read, training a clone."""

from __future__ import annotations

from ._input_validation import outputs_of, read_training_rows, require_readable, row_form
from ._network import Network
from ._pickling import PortableNet
from ._training import train_clone

__all__ = [
    "Network",
    "PortableNet",
    "outputs_of",
    "read_training_rows",
    "require_readable",
    "row_form",
    "train_clone",
]
