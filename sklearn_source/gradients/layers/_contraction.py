"""Stacks of matrices, as experts have them, and other weights that ``einsum`` sums over."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from ...utils._compat_torch import view_base
from ..algebra import Factored
from ._layer_registry import Arguments, reads
from ._linear import TRANSPOSED, Linear, Matmul
from ._parameter_rule import ParameterRule
from ._vector_rule import Shift


@dataclass(frozen=True)
class Contraction(ParameterRule):
    """A weight that meets its inputs along some of its axes, for every index of some others by itself.

    ``groups`` has a letter for every axis of the parameter: "g" for one that the input and the output have too, "i" for
    one that is summed over, "o" for one of the output alone. A use's ``x`` is (k, n, in), of some groups from the line
    of its weight on; ``settings`` hold the order of the output's axes that makes it (k, n, out), and how many of
    them are the last.
    """

    groups: int | str = "goi"
    form = "factored"
    has_factors = True
    bias_rule = Shift

    def _sizes(self, kind):
        return [size for size, letter in zip(self.parameter, self.groups) if letter == kind]

    @property
    def shape(self):
        return tuple(math.prod(self._sizes(kind)) for kind in "goi")

    def _order(self):
        return [axis for kind in "goi" for axis, letter in enumerate(self.groups) if letter == kind]

    def to_matrix(self, value):
        lead = value.dim() - len(self.parameter)
        value = value.permute(*range(lead), *(lead + axis for axis in self._order()))
        return value.reshape(*value.shape[:lead], *self.shape)

    def from_matrix(self, matrix):
        lead, order = matrix.dim() - 3, self._order()
        value = matrix.reshape(*matrix.shape[:lead], *(self.parameter[axis] for axis in order))
        return value.permute(*range(lead), *(lead + order.index(axis) for axis in range(len(order))))

    def row_gradient(self, pairs, bias, layout, shared):
        g = self._by_group([(use, Contraction.arranged(use, grad), use.weight[1]) for use, grad in pairs], layout)
        if type(self) not in shared:
            inputs = [(use, use.x.detach().to(g.dtype), use.weight[1]) for use, _ in pairs]
            shared[type(self)] = self._by_group(inputs, layout)
        return Factored(shared[type(self)], g)

    def _by_group(self, parts, layout):
        """(B, G, T, d) from the vectors (k, n, d) of several uses, each of some groups."""
        n_groups = self.shape[0]
        parts = [(_split(use, values, layout), start) for use, values, start in parts]
        if len(parts) == 1 and parts[0][0].shape[1] == n_groups:
            return parts[0][0]
        ends = [0] * n_groups  # positions filled so far
        for values, start in parts:
            for group in range(start, start + values.shape[1]):
                ends[group] += values.shape[2]
        first = parts[0][0]
        total = first.new_zeros((len(first), n_groups, max(ends), first.shape[3]))
        ends = [0] * n_groups
        for values, start in parts:
            for i, group in enumerate(range(start, start + values.shape[1])):
                total[:, group, ends[group] : ends[group] + values.shape[2]] = values[:, i]
                ends[group] += values.shape[2]
        return total

    def zero_gradient(self, n_rows, bias, like):
        groups, out, width = self.shape
        return Factored(like.new_zeros((n_rows, groups, 1, width)), like.new_zeros((n_rows, groups, 1, out)))

    @classmethod
    def n_positions_seen(cls, x):
        return x.shape[1]

    @staticmethod
    def arranged(use, grad):
        """(k, n, out) from the gradient of what came out of a use."""
        order, n_free = use.settings
        grad = grad.permute(order)
        return grad.reshape(*use.x.shape[:2], math.prod(grad.shape[grad.dim() - n_free :]))

    @classmethod
    def bias_gradient(cls, use, grad, size, layout):
        """Of one number per group and output."""
        g = _split(use, Contraction.arranged(use, grad), layout).sum(2)  # (B, k, out)
        start = use.bias[1]
        total = g.new_zeros((len(g), math.prod(size) // g.shape[2], g.shape[2]))
        total[:, start : start + g.shape[1]] = g
        return total.reshape(len(g), *size)


def _split(use, values, layout):
    return layout.of(use).split_groups(values, lambda grad: Contraction.arranged(use, grad))


def member_of(arguments, base):
    """A linear map by one matrix of a stack ``base``, as a use of the stack; None where it is no such.

    Returns
    -------
    (arguments, number of the matrix) or None
    """
    if arguments is None or arguments.rule is not Linear or base.dim() != 3 or not base.is_contiguous():
        return None
    if arguments.settings:
        return None
    weight, lines = arguments.weight, base.stride()
    if (tuple(weight.shape), weight.stride()) == (tuple(base.shape[1:]), lines[1:]):
        axes = "goi"
    elif (tuple(weight.t().shape), weight.t().stride()) == (tuple(base.shape[1:]), lines[1:]):
        axes = "gio"
    else:
        return None
    x = arguments.x.reshape(1, -1, weight.shape[1])
    order = tuple(range(arguments.x.dim()))
    return Arguments(Contraction, x, arguments.weight, arguments.bias, (order, 1), axes), (
        weight.storage_offset() - base.storage_offset()
    ) // lines[0]


def _contraction(x, x_axes, weight, weight_axes, output_axes, bias=None):
    """Arguments of a product of two tensors whose axes have names; None where it is no product of vectors."""
    axes = (x_axes, weight_axes, output_axes)
    if (
        any(len(set(names)) != len(names) for names in axes)
        or len(x_axes) != x.dim()
        or len(weight_axes) != weight.dim()
    ):
        return None
    kinds = {(True, True): "g", (True, False): "i", (False, True): "o"}
    letters = [kinds.get((name in x_axes, name in output_axes)) for name in weight_axes]
    rest = [name for name in x_axes if name not in weight_axes]
    if None in letters or not rest or not set(rest) <= set(output_axes) or "i" not in letters:
        return None
    of = {kind: [name for name, letter in zip(weight_axes, letters) if letter == kind] for kind in "gio"}
    size = dict(zip(weight_axes, weight.shape))
    if any(x.shape[x_axes.index(name)] != size[name] for name in of["g"] + of["i"]):
        return None  # broadcast
    n_groups, width = (math.prod(size[name] for name in of[kind]) for kind in "gi")
    vectors = x.permute([x_axes.index(name) for name in of["g"] + rest + of["i"]])
    vectors = vectors.reshape(n_groups, math.prod(x.shape[x_axes.index(name)] for name in rest), width)
    order = tuple(output_axes.index(name) for name in of["g"] + rest + of["o"])
    return Arguments(Contraction, vectors, weight, bias, (order, len(of["o"])), "".join(letters))


@reads(torch.matmul, torch.mm, torch.Tensor.matmul, torch.Tensor.__matmul__)
def _matmul(input, other):
    if isinstance(input, nn.Parameter) and input.dim() == 2 <= other.dim():  # weight @ x
        return Arguments(Linear, other.mT, input, None, TRANSPOSED)
    if not isinstance(other, torch.Tensor) or other.dim() not in (2, 3) or input.dim() < 2:
        return None
    if other.dim() == 3:
        return _batched_product(input, other)
    if view_base(other) is not None:  # x @ W.T is F.linear(x, W) without a bias
        return Arguments(Linear, input, other.t())
    return Arguments(Matmul, input, other)


@reads(torch.bmm, torch.Tensor.bmm)
def _bmm(input, mat2):
    return _batched_product(input, mat2)


@reads(torch.baddbmm, torch.Tensor.baddbmm)
def _baddbmm(input, batch1, batch2, *, beta=1, alpha=1):
    if beta != 1 or alpha != 1:
        return None
    bias = input if view_base(input) is None else input.squeeze(1)
    suits = input.dim() == 3 and input.shape[1] == 1 and len(input) == len(batch2)
    return _batched_product(batch1, batch2, bias if suits else None)


def _batched_product(input, other, bias=None):
    """``input @ other`` for a stack of matrices ``other`` (G, in, out)."""
    lead = [f"lead{i}" for i in range(input.dim() - 3)]
    x_axes = [*lead, *(["g"] if input.dim() > 2 else []), "n", "i"]
    weight_axes, weight = ["g", "i", "o"], other
    if not isinstance(other, nn.Parameter) and other.stride(1) == 1:  # a stack of transposed matrices
        weight_axes, weight = ["g", "o", "i"], other.transpose(1, 2)
    if input.dim() > 2 and input.shape[-3] == 1 != len(other):
        input = input.expand(*input.shape[:-3], len(other), *input.shape[-2:])
    return _contraction(input, x_axes, weight, weight_axes, [*lead, "g", "n", "o"], bias)


@reads(torch.einsum)
def _einsum(equation, *operands):
    operands = operands[0] if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands
    if not isinstance(equation, str) or "->" not in equation or "." in equation or len(operands) != 2:
        return None
    terms, output = equation.replace(" ", "").split("->")
    first, second = (list(term) for term in terms.split(","))
    (x, x_axes), (weight, weight_axes) = (operands[0], first), (operands[1], second)
    if isinstance(x, nn.Parameter):
        (x, x_axes), (weight, weight_axes) = (weight, weight_axes), (x, x_axes)
    return _contraction(x, x_axes, weight, weight_axes, list(output))
