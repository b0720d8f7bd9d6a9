"""The protocol of a rule, which turns the uses of a parameter into its per-row gradients."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class ParameterRule(ABC):
    """How one way of using a parameter turns into the parameter's per-row gradients.

    The class stands for the way of using it, an object for the parameter of a block: its gradient of one row is a
    matrix of :attr:`shape`, whose order of columns :meth:`to_matrix` and :meth:`from_matrix` alone know.

    Parameters
    ----------
    parameter : tuple of int
        The parameter's shape.
    groups : int or str
        Of a grouped convolution; of a contraction what each axis of the parameter is.

    Attributes
    ----------
    form : str
        What a block with this rule is called: see :class:`Block`.
    has_factors : bool
        Whether the gradients are sums of outer products of inputs and output gradients.
    has_diagonal_input : bool
        Whether the second moment of the inputs is a diagonal, as that of one-hot vectors is.
    joins_bias : bool
        Whether a bias can be the matrix's last column.
    bias_rule : type of ParameterRule or None
        How the bias that goes with the weight is used; None where there is none.
    adds_up : bool
        Whether gradients of further uses of the same parameter, by other rules that add up, may be added to these.
    may_lack_rows : bool
        Whether the input may be the same for all rows and without an axis for them, as ``arange(T)`` of positions.
    of_bias : bool
        Whether the parameter is the ``bias`` of its uses, not the ``weight``.
    is_broadcast : bool
        Whether the parameter has its rows only where it is broadcast over the batch.
    by_uses, by_layer : bool
        Whether the gradients come from the uses; by ``torch.func`` from calls of the layer; neither: of the network.
    """

    parameter: tuple[int, ...]
    groups: int | str = 1

    form: ClassVar[str]
    has_factors: ClassVar[bool] = False
    has_diagonal_input: ClassVar[bool] = False
    joins_bias: ClassVar[bool] = False
    bias_rule: ClassVar[type[ParameterRule] | None] = None
    adds_up: ClassVar[bool] = False
    may_lack_rows: ClassVar[bool] = False
    of_bias: ClassVar[bool] = False
    is_broadcast: ClassVar[bool] = False
    by_uses: ClassVar[bool] = True
    by_layer: ClassVar[bool] = False

    @property
    def shape(self):
        """(groups, out, in); without factors vectors are one column, other tensors keep their first axis."""
        if len(self.parameter) < 2:
            return (1, math.prod(self.parameter), 1)
        return (1, self.parameter[0], math.prod(self.parameter[1:]))

    def to_matrix(self, value):
        """(..., *parameter) -> (..., groups, out, in)."""
        return value.reshape(*value.shape[: value.dim() - len(self.parameter)], *self.shape)

    def from_matrix(self, matrix):
        """The inverse of :meth:`to_matrix`."""
        return matrix.reshape((*matrix.shape[:-3], *self.parameter))

    def takes(self, use):
        """Whether the rule is for this use of the parameter."""
        return use.rule is type(self)

    @abstractmethod
    def row_gradient(self, pairs, bias, layout, shared):
        """The parameter's gradient of every row.

        Parameters
        ----------
        pairs : list of (ParameterUse, Tensor)
            The uses of the parameter that the rule takes, at least one, and the gradient of what came out of each.
        bias : str or None
            The bias that is the matrix's last column.
        layout : RowLayout
        shared : dict
            Kept between pulled-back cotangents of one forward pass: what depends on inputs alone goes there.

        Returns
        -------
        gradient : RowGradient
        """

    @abstractmethod
    def zero_gradient(self, n_rows, bias, like):
        """A gradient of zeros, in the form of :meth:`row_gradient`, of a parameter that took no part in the output."""

    @classmethod
    def n_positions_seen(cls, x):
        """How many vectors a function that uses a weight in this way saw in its input ``x``."""
        return x.numel() // x.shape[-1]

    @classmethod
    def bias_gradient(cls, use, grad, size, layout):
        """(B, size) gradient of the bias of one such use, from that of the function's output."""
        raise NotImplementedError(f"{cls.__name__} goes with no bias")
