"""Per-row gradients as blocks: factored where a layer allows, dense otherwise."""

from __future__ import annotations

from ._blocks import Block, from_matrices, select_parameters, to_matrices
from ._capture import Capture
from ._cotangent import loss_cotangent
from ._engine import GradientEngine
from ._functional import FunctionalForward
from .algebra._dense import Dense
from .algebra._factored import Factored
from .algebra._indexed import Indexed
from .algebra._pairs import add_pairs, met_bytes, rowwise_pairs, to_meet, unit_vectors
from .algebra._products import even_chunks, rotate_matrices
from .algebra._row_gradient import RowGradient
from .algebra._scaled import Scaled
from .algebra._sums import held_bytes, squared_in_basis, weighted_sum, whole_moments

__all__ = [
    "Block",
    "Capture",
    "Dense",
    "Factored",
    "FunctionalForward",
    "GradientEngine",
    "Indexed",
    "RowGradient",
    "Scaled",
    "add_pairs",
    "even_chunks",
    "from_matrices",
    "held_bytes",
    "loss_cotangent",
    "met_bytes",
    "rotate_matrices",
    "rowwise_pairs",
    "select_parameters",
    "squared_in_basis",
    "to_matrices",
    "to_meet",
    "unit_vectors",
    "weighted_sum",
    "whole_moments",
]
