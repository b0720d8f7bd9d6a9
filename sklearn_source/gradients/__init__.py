"""Per-row gradients as blocks: factored where a layer allows, dense otherwise.

``layers`` knows the kinds of layers, one file a kind; ``algebra`` the forms of gradients, one file a form.
"""

from __future__ import annotations

from ._blocks import Block, from_matrices, to_matrices
from ._capture import Capture
from ._cotangent import loss_cotangent
from ._engine import GradientEngine
from ._parameter_selection import layer_names

__all__ = [
    "Block",
    "Capture",
    "GradientEngine",
    "from_matrices",
    "layer_names",
    "loss_cotangent",
    "to_matrices",
]
