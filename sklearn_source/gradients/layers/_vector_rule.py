"""Parameters that are added to every position, or multiply it: their gradients are sums over positions."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from ..algebra import Dense, Factored
from ._parameter_rule import ParameterRule


@dataclass(frozen=True)
class VectorRule(ParameterRule):
    """Any such parameter; :meth:`of_use` says what one use gives."""

    form = "affine"

    @abstractmethod
    def of_use(self, use, grad, layout):
        """(B, *parameter): the gradient by one use, from that of the function's output."""

    def row_gradient(self, pairs, bias, layout, shared):
        total = sum(self.of_use(use, grad, layout.of(use)) for use, grad in pairs)
        return Dense(total.reshape(layout.n_rows, *self.shape))

    def zero_gradient(self, n_rows, bias, like):
        return Dense(like.new_zeros((n_rows, *self.shape)))


@dataclass(frozen=True)
class Shift(VectorRule):
    """What a norm adds to every position."""

    of_bias = True

    def takes(self, use):
        return True

    def of_use(self, use, grad, layout):
        return use.rule.bias_gradient(use, grad, self.parameter, layout)


@dataclass(frozen=True)
class Bias(Shift):
    """A layer's bias by itself: a matrix of one column, whose input is one at every position."""

    form = "factored"
    has_factors = True

    def row_gradient(self, pairs, bias, layout, shared):
        # Every position's input is one: the sum is the gradient itself, and exact as such.
        g = super().row_gradient(pairs, bias, layout, shared).G.reshape(layout.n_rows, 1, 1, -1)
        if type(self) not in shared:
            shared[type(self)] = g.new_ones((layout.n_rows, 1, 1, 1))
        return Factored(shared[type(self)], g)

    def zero_gradient(self, n_rows, bias, like):
        return Factored(like.new_ones((n_rows, 1, 1, 1)), like.new_zeros((n_rows, 1, 1, self.shape[1])))


def over_leading_axes(grad, shape, layout):
    """(B, *shape) from the gradient (..., *shape) of what a parameter was added to."""
    return layout.split(grad.reshape(-1, *shape)).sum(1)


def over_axes_after_channels(grad, shape, layout):
    """(B, channels) from the gradient (..., channels, positions...) of maps whose second axis is the channels."""
    return layout.split(grad.reshape(*grad.shape[:2], -1).sum(2)).sum(1)
