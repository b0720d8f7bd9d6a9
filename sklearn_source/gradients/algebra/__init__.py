"""The forms of a per-row gradient, and what can be done with them without forming its matrix."""

from __future__ import annotations

from ._factored import Dense, Factored, held_bytes, rotate_matrices, squared_in_basis, weighted_sum
from ._indexed import Indexed
from ._inputs import Inputs
from ._moments import Overlap
from ._pairs import add_pairs, met_bytes, rowwise_pairs, to_meet, unit_vectors
from ._products import even_chunks
from ._scaled import scaled, whole_moments

__all__ = [
    "Dense",
    "Factored",
    "Indexed",
    "Inputs",
    "Overlap",
    "add_pairs",
    "even_chunks",
    "held_bytes",
    "met_bytes",
    "rotate_matrices",
    "rowwise_pairs",
    "scaled",
    "squared_in_basis",
    "to_meet",
    "unit_vectors",
    "weighted_sum",
    "whole_moments",
]
