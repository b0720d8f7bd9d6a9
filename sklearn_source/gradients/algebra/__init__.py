"""The forms of a per-row gradient, and what can be done with them without forming its matrix.

A block's gradient for row ``n`` is a matrix ``G_n`` of shape (groups, out, in). :class:`RowGradient` is what every form
can do, and these are the forms, one a file:

- :class:`Factored`: ``G_n = sum_t g_nt a_nt^T`` over positions ``t``, formed only where that is cheaper;
- :class:`Indexed`: the columns of an embedding's table that a row looked up;
- :class:`Dense`: the matrices themselves;
- :class:`Scaled`: any of them times a matrix, entry by entry, as a preconditioner has it.

What meets them are queries: vectors, factored gradients, or few outer products each (:class:`LowRank`, within a
tolerance); :class:`Meeting` knows which of these is least work. Vectors in bfloat16 meet them in that precision.
"""

from __future__ import annotations

from ._bfloat16 import in_bfloat16, warn_of_emulation
from ._chosen import chosen
from ._condensed import condensed
from ._dense import Dense
from ._factored import Factored
from ._indexed import Indexed
from ._inputs import Inputs
from ._joined import formed, joined
from ._low_rank import LowRank, low_rank
from ._meeting import Meeting, add_inner, rowwise_inner
from ._moments import Overlap
from ._packed import pack, unpack
from ._pairs import add_pairs, met_bytes, pairs_pay, rowwise_pairs, to_meet, unit_vectors
from ._products import even_chunks, rotate_matrices
from ._row_gradient import RowGradient
from ._scaled import Scaled
from ._sums import held_bytes, output_moments, squared_in_basis, weighted_sum, whole_moments

__all__ = [
    "Dense",
    "Factored",
    "Indexed",
    "Inputs",
    "LowRank",
    "Meeting",
    "Overlap",
    "RowGradient",
    "Scaled",
    "add_inner",
    "add_pairs",
    "chosen",
    "condensed",
    "even_chunks",
    "formed",
    "held_bytes",
    "in_bfloat16",
    "joined",
    "low_rank",
    "met_bytes",
    "output_moments",
    "pack",
    "rotate_matrices",
    "rowwise_inner",
    "pairs_pay",
    "rowwise_pairs",
    "squared_in_basis",
    "to_meet",
    "unit_vectors",
    "unpack",
    "warn_of_emulation",
    "weighted_sum",
    "whole_moments",
]
