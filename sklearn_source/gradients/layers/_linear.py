"""How one use of a weight turns into per-row gradients: inputs and output gradients with a position axis.

A rule takes the :class:`Use` and the gradient of its output, and returns ``a`` (B, groups, T, in) and ``g``
(B, groups, T, out) with ``G_n = sum_t g_nt a_nt^T``. Rows are the first axis of what a function sees (also where rows
and positions were flattened together), or the second (``rows_first=False``: (T, B, d), as inside attention).
``to_matrix``/``from_matrix`` hold the order of a matrix's columns in one place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ._convolution import ConvRule, ConvTransposeRule
from ._row_layout import split_rows


def _at_lines(g, start, lines):
    """Gradients (..., some) of the lines from ``start`` on, with zeros for the others: (..., lines)."""
    width = g.shape[-1]
    return g if width == lines else F.pad(g, (start, lines - start - width))


def _with_ones(x, ones):
    """One more column: the bias's input, one where the use had the bias, else zero."""
    a = x.new_empty((*x.shape[:-1], x.shape[-1] + 1))
    a[..., :-1] = x
    a[..., -1] = float(ones)
    return a


@dataclass(frozen=True)
class LinearRule:
    """A weight (out, ...) that multiplies vectors, its axes but the first flattened: linear, bilinear, recurrent."""

    weight: tuple[int, ...]
    op = "linear"
    joins_bias = True

    @property
    def shape(self):
        return (1, self.weight[0], math.prod(self.weight[1:]))

    def inputs(self, x, settings, n_rows, rows_first, ones=None):
        x = split_rows(x.reshape(-1, self.shape[2]), n_rows, rows_first).unsqueeze(1)  # (B, 1, T, in)
        return x if ones is None else _with_ones(x, ones)

    def overlap(self, x, settings):
        """Of a convolution's windows: see ``ConvRule``."""
        return None

    def outputs(self, use, grad, n_rows, rows_first):
        g = split_rows(grad.reshape(-1, grad.shape[-1]), n_rows, rows_first)
        return _at_lines(g, use.weight[1], self.weight[0]).unsqueeze(1)

    def to_matrix(self, weight):
        """(..., *weight) -> (..., 1, out, in)."""
        lead = weight.shape[: weight.dim() - len(self.weight)]
        return weight.reshape(*lead, *self.shape)

    def from_matrix(self, matrix):
        return matrix.reshape(*matrix.shape[:-3], *self.weight)


@dataclass(frozen=True)
class MatmulRule(LinearRule):
    """A weight (in, out), as in ``x @ weight``; its matrix is (1, out, in) all the same."""

    op = "matmul"

    @property
    def shape(self):
        return (1, self.weight[1], self.weight[0])

    def outputs(self, use, grad, n_rows, rows_first):
        return split_rows(grad.reshape(-1, grad.shape[-1]), n_rows, rows_first).unsqueeze(1)

    def to_matrix(self, weight):
        return weight.transpose(-1, -2).unsqueeze(-3)

    def from_matrix(self, matrix):
        return matrix.squeeze(-3).transpose(-1, -2)


@dataclass(frozen=True)
class EmbeddingRule:
    """A table (V, d) looked up by indices; its matrix is (1, d, V), and its input a one-hot vector never formed."""

    weight: tuple[int, ...]
    op = "embedding"
    joins_bias = False

    @property
    def shape(self):
        return (1, self.weight[1], self.weight[0])

    def tokens(self, use, n_rows, rows_first):
        """(B, T) indices."""
        return split_rows(use.x.reshape(-1), n_rows, rows_first)

    def outputs(self, use, grad, n_rows, rows_first):
        """(B, T, d) gradients of what was looked up; zero at the padding index, as torch has it."""
        padding, share = use.settings
        if share is not None:  # a bag's output is a sum of its members, each with its share
            grad = grad.unsqueeze(1) * share.unsqueeze(-1)
        g = split_rows(grad.reshape(-1, self.shape[1]), n_rows, rows_first)
        if padding is not None:
            g = g.masked_fill((self.tokens(use, n_rows, rows_first) == padding).unsqueeze(-1), 0)
        return g

    def to_matrix(self, weight):
        return weight.transpose(-1, -2).unsqueeze(-3)

    def from_matrix(self, matrix):
        return matrix.squeeze(-3).transpose(-1, -2)


@dataclass(frozen=True)
class TransposedEmbeddingRule(EmbeddingRule):
    """A table (d, V) of which the columns are looked up, as low-rank adapters of embeddings do."""

    op = "embedding_transposed"

    @property
    def shape(self):
        return (1, *self.weight)

    def to_matrix(self, weight):
        return weight.unsqueeze(-3)

    def from_matrix(self, matrix):
        return matrix.squeeze(-3)


@dataclass(frozen=True)
class VectorRule:
    """A parameter that is added to every position, or multiplies it: its gradient is a sum over positions.

    ``op`` is ``"bias"``, ``"norm"`` for the scale of a normalised input, or ``"broadcast"``.
    """

    weight: tuple[int, ...]
    op: str = "bias"

    def gradient(self, use, grad, n_rows, rows_first):
        """(B, *weight)."""
        if self.op == "broadcast":
            return grad
        if self.op == "norm":
            if callable(use.x):  # once for all pulls of this capture
                with torch.no_grad():
                    use.x = use.x()
            grad = grad * use.x
        if use.op in ("conv", "conv_transpose") or use.settings == ("channel",):
            grad = grad.reshape(*grad.shape[:2], -1).sum(2)
        elif use.op in ("linear", "matmul"):
            grad = grad.reshape(-1, grad.shape[-1])
        else:
            grad = grad.reshape(-1, *self.weight)
        grad = split_rows(grad, n_rows, rows_first).sum(1)
        return _at_lines(grad, use.bias[1], self.weight[0]) if use.op == "linear" else grad


@dataclass(frozen=True)
class MixedRule:
    """A matrix that is used in several of these ways, as an embedding that is tied to the output's weight: a sum."""

    weight: tuple[int, ...]
    rules: tuple[object, ...]
    op = "mixed"


# What adds up to one matrix, if only as one.
MIXABLE = ("linear", "matmul", "embedding", "embedding_transposed")


def rule_of(op, weight, groups=1):
    """The rule for a weight of this shape; ``groups`` matters to convolutions."""
    if op in ("norm", "broadcast"):
        return VectorRule(tuple(weight), op)
    if op == "conv":
        return ConvRule(tuple(weight), groups)
    if op == "conv_transpose":
        return ConvTransposeRule(tuple(weight), groups)
    return _RULES[op](tuple(weight))


_RULES = {rule.op: rule for rule in (LinearRule, MatmulRule, EmbeddingRule, TransposedEmbeddingRule)}
