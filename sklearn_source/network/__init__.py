"""The only reader of a skorch net: a private copy of it, its forward pass, what it can read, training a clone."""

from __future__ import annotations

from ._changed_numbers import warn_changed_numbers
from ._input_validation import outputs_of, row_form, validate_query_rows, validate_training_rows
from ._module_variant import net_with_changed_module, replace_tensors, train_module
from ._network import Network
from ._outside_state import outside_state, set_outside_state
from ._pickling import PortableNet
from ._pipeline import FittedSteps, split_pipeline
from ._training import add_callback, refuse_module_instance, rows_for_training, seeded_clone, train_clone
from ._training_gradients import slope_along, training_gradients
from ._whole_training import train_to_the_end

__all__ = [
    "FittedSteps",
    "Network",
    "PortableNet",
    "add_callback",
    "net_with_changed_module",
    "outputs_of",
    "outside_state",
    "refuse_module_instance",
    "replace_tensors",
    "row_form",
    "rows_for_training",
    "seeded_clone",
    "set_outside_state",
    "slope_along",
    "split_pipeline",
    "train_clone",
    "train_module",
    "train_to_the_end",
    "training_gradients",
    "validate_query_rows",
    "validate_training_rows",
    "warn_changed_numbers",
]
