"""Blocks of parameters, and the matrices that they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .layers import ParameterRule

# Where rows are looked for, one after the other.
ROWS = ("first", "second", "routed", "shared")


@dataclass(frozen=True)
class Block:
    """One matrix-shaped piece of the parameters: the unit of every block-diagonal curvature.

    Attributes
    ----------
    name : str
        The layer's name, or the parameter's where the block holds only that.
    parameters : tuple of str
        Names in ``module.named_parameters()``; (weight, bias) is a weight with the bias as its last column.
    shape : tuple of int
        (groups, out, in), the bias's column included.
    rule : ParameterRule
        How the block's per-row gradient comes about.
    module : str
        The owning layer's name.
    rows : {"first", "second", "routed", "shared"}
        Whether rows are the first axis of what the layer sees, the second, as in (T, B, d), any of it, as where tokens
        are sent to experts, or none, as where positions are embedded that are the same for all rows.
    """

    name: str
    parameters: tuple[str, ...]
    shape: tuple[int, int, int]
    rule: ParameterRule
    module: str = ""
    rows: str = ROWS[0]

    @property
    def kind(self) -> str:
        """How the per-row gradient comes about, in a word, for people.

        ``"factored"``: from the inputs and output gradients of the functions that use a weight or a bias;
        ``"indexed"``: from the indices that looked up an embedding; ``"mixed"``: as the sum of both, of a weight that
        is tied to an embedding; ``"affine"``: as a sum over positions, for the affine parameters of a norm and for what
        is broadcast; ``"layer"``: by ``torch.func`` on one layer; ``"dense"``: by ``torch.func`` through the whole
        network.
        """
        return self.rule.form

    @property
    def size(self) -> int:
        """How many numbers the block has."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def bias(self) -> str | None:
        """The parameter that is the last column, where one is."""
        return self.parameters[1] if len(self.parameters) == 2 else None

    @property
    def has_factors(self) -> bool:
        """Whether the gradients are sums of outer products of inputs and output gradients, as K-FAC's factors want."""
        return self.rule.has_factors

    @property
    def has_diagonal_input(self) -> bool:
        """Whether the second moment of the inputs is a diagonal, which no width makes too large to hold."""
        return self.rule.has_diagonal_input

    @property
    def by_uses(self) -> bool:
        """Whether the gradients come from uses of the parameters that were seen."""
        return self.rule.by_uses

    @property
    def by_layer(self) -> bool:
        """Whether they come by ``torch.func`` from calls of the owning layer."""
        return self.rule.by_layer

    @property
    def by_network(self) -> bool:
        """Whether they come by ``torch.func`` through the whole network, the last resort."""
        return not (self.rule.by_uses or self.rule.by_layer)

    @property
    def rows_first(self) -> bool:
        """Whether rows come before positions in what the layer sees."""
        return self.rows != ROWS[1]

    @property
    def lacks_rows(self) -> bool:
        """Whether the layer sees one input for all rows."""
        return self.rows == "shared"

    @property
    def is_routed(self) -> bool:
        """Whether which rows the layer sees depends on the rows."""
        return self.rows == "routed"


def to_matrices(block: Block, values: dict[str, torch.Tensor]) -> torch.Tensor:
    """Parameter-shaped tensors (lead axes allowed) of one block as (..., groups, out, in)."""
    matrices = block.rule.to_matrix(values[block.parameters[0]])
    if block.bias is None:
        return matrices
    bias = values[block.bias]
    return torch.cat([matrices, bias.reshape(*bias.shape[:-1], *block.shape[:2], 1)], dim=-1)


def from_matrices(block: Block, matrices: torch.Tensor) -> dict[str, torch.Tensor]:
    """The inverse of :func:`to_matrices`: dict of parameter name to tensor, lead axes kept."""
    name = block.parameters[0]
    if block.bias is None:
        return {name: block.rule.from_matrix(matrices)}
    bias = matrices[..., -1].reshape(*matrices.shape[:-3], block.shape[0] * block.shape[1])
    return {name: block.rule.from_matrix(matrices[..., :-1]), block.bias: bias}
