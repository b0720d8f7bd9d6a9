"""Linear and bilinear maps of vectors, and products with a matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from ...utils._compat_torch import view_base
from ._factored_rule import FactoredRule
from ._layer_registry import Arguments, ParameterSpec, reads, specifies
from ._vector_rule import over_leading_axes

# Settings of a use in which the vectors are columns, as in ``weight @ x``.
TRANSPOSED = ("columns",)


@dataclass(frozen=True)
class Linear(FactoredRule):
    """A weight (out, ...) that multiplies vectors, its axes but the first flattened: linear, bilinear, recurrent."""

    joins_bias = True
    adds_up = True
    may_lack_rows = True

    @property
    def shape(self):
        return (1, self.parameter[0], math.prod(self.parameter[1:]))

    def inputs(self, x, settings, layout, ones=None):
        x = x.reshape(-1, self.shape[2])
        presence = layout.presence(len(x)) if ones else None
        x = layout.split(x).unsqueeze(1)  # (B, 1, T, in)
        return x if ones is None else _with_ones(x, float(ones) if presence is None else presence.unsqueeze(1))

    def outputs(self, use, grad, layout):
        if use.settings == TRANSPOSED:
            grad = grad.mT
        g = layout.split(grad.reshape(-1, grad.shape[-1]))
        return _at_lines(g, use.weight[1], self.parameter[0]).unsqueeze(1)

    @classmethod
    def bias_gradient(cls, use, grad, size, layout):
        return _at_lines(over_leading_axes(grad, grad.shape[-1:], layout), use.bias[1], size[0])


@dataclass(frozen=True)
class Matmul(Linear):
    """A weight (in, out), as in ``x @ weight``; its matrix is (1, out, in) all the same."""

    @property
    def shape(self):
        return (1, self.parameter[1], self.parameter[0])

    def outputs(self, use, grad, layout):
        return layout.split(grad.reshape(-1, grad.shape[-1])).unsqueeze(1)

    def to_matrix(self, value):
        return value.transpose(-1, -2).unsqueeze(-3)

    def from_matrix(self, matrix):
        return matrix.squeeze(-3).transpose(-1, -2)

    @classmethod
    def bias_gradient(cls, use, grad, size, layout):
        return over_leading_axes(grad, grad.shape[-1:], layout)


def _at_lines(g, start, lines):
    """Gradients (..., some) of the lines from ``start`` on, with zeros for the others: (..., lines)."""
    width = g.shape[-1]
    return g if width == lines else F.pad(g, (start, lines - start - width))


def _with_ones(x, ones):
    """One more column: the bias's input, one where the use had the bias and there is a position, else zero."""
    a = x.new_empty((*x.shape[:-1], x.shape[-1] + 1))
    a[..., :-1] = x
    a[..., -1] = ones
    return a


@specifies(nn.Linear, nn.Bilinear)
def _linear_layer(module):
    return [ParameterSpec(Linear, "weight", "bias")]


@reads(F.linear)
def _linear(input, weight, bias=None):
    return Arguments(Linear, input, weight, bias)


@reads(F.bilinear)
def _bilinear(input1, input2, weight, bias=None):
    return Arguments(Linear, (input1.unsqueeze(-1) * input2.unsqueeze(-2)).flatten(-2), weight, bias)


@reads(torch.addmm, torch.Tensor.addmm)
def _addmm(input, mat1, mat2, *, beta=1, alpha=1):
    if beta != 1 or alpha != 1 or view_base(mat2) is not None:
        return None
    return Arguments(Matmul, mat1, mat2, input)
