"""How one use of a weight turns into per-row gradients: inputs and output gradients with a position axis.

A rule takes the :class:`Use` and the gradient of its output, and returns ``a`` (B, groups, T, in) and ``g``
(B, groups, T, out) with ``G_n = sum_t g_nt a_nt^T``. Rows are the first axis of what a function sees (also where rows
and positions were flattened together), or the last before the features (``rows_first=False``: (T, B, d), as inside
attention). Columns of a convolution are ordered (kernel..., channel): copying whole channel vectors is what makes
unfolding cheap. ``to_matrix``/``from_matrix`` hold that order in one place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F


def split_rows(x, n_rows, rows_first):
    """(B * k, ...) or (k * B, ...), the first axes of ``x`` flattened already, as (B, k, ...)."""
    if rows_first:
        return x.reshape(n_rows, -1, *x.shape[1:])
    return x.reshape(-1, n_rows, *x.shape[1:]).transpose(0, 1)


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
class ConvRule:
    """A convolution in one, two or three dimensions, with stride, zero padding, dilation and groups."""

    weight: tuple[int, ...]
    groups: int = 1
    op = "conv"
    joins_bias = True

    @property
    def shape(self):
        return (self.groups, self.weight[0] // self.groups, math.prod(self.weight[1:]))

    def inputs(self, x, settings, n_rows, rows_first, ones=None):
        stride, padding, dilation, _ = settings
        x = F.pad(x, _pads(self.weight[2:], padding, dilation)).movedim(1, -1).contiguous()
        view = _windows(x, self.groups, self.weight[2:], stride, dilation)
        dims = len(stride)
        positions = math.prod(view.shape[2 : 2 + dims])
        lead = split_rows(view, n_rows, rows_first)  # (B, k, G, windows..., kernel..., C)
        lead = lead.transpose(1, 2)
        shape = (n_rows, self.groups, lead.shape[2] * positions, self.shape[2])
        if ones is None:
            return lead.reshape(shape)
        a = x.new_empty((*shape[:3], shape[3] + 1))
        a[..., -1] = float(ones)
        target = a[..., :-1].unflatten(3, view.shape[2 + dims :]).unflatten(2, lead.shape[2 : 3 + dims])
        target.copy_(lead)  # no second copy of the unfolded input
        return a

    def outputs(self, use, grad, n_rows, rows_first):
        g = split_rows(grad.reshape(grad.shape[0], self.groups, -1, math.prod(grad.shape[2:])), n_rows, rows_first)
        return g.permute(0, 2, 1, 4, 3).reshape(n_rows, self.groups, -1, g.shape[3])  # (B, G, T, out)

    def to_matrix(self, weight):
        """(..., out, in/groups, *kernel) -> (..., groups, out/groups, kernel*in/groups)."""
        dims = len(self.weight) - 2
        lead = weight.shape[: weight.dim() - dims - 2]
        return weight.movedim(-dims - 1, -1).reshape(*lead, *self.shape)

    def from_matrix(self, matrix):
        dims = len(self.weight) - 2
        channels_last = (self.weight[0], *self.weight[2:], self.weight[1])
        return matrix.reshape(*matrix.shape[:-3], *channels_last).movedim(-1, -dims - 1)


@dataclass(frozen=True)
class ConvTransposeRule:
    """A transposed convolution: a linear map of every input position to a window of outputs, which overlap.

    Its matrix is (groups, kernel*out/groups, in/groups); the bias, one number per output channel, is no column of it.
    """

    weight: tuple[int, ...]
    groups: int = 1
    op = "conv_transpose"
    joins_bias = False

    @property
    def shape(self):
        return (self.groups, math.prod(self.weight[1:]), self.weight[0] // self.groups)

    def inputs(self, x, settings, n_rows, rows_first, ones=None):
        x = split_rows(x.reshape(x.shape[0], self.groups, -1, math.prod(x.shape[2:])), n_rows, rows_first)
        return x.permute(0, 2, 1, 4, 3).reshape(n_rows, self.groups, -1, x.shape[3])

    def outputs(self, use, grad, n_rows, rows_first):
        stride, padding, dilation, _ = use.settings
        grad = F.pad(grad, _pads(self.weight[2:], padding, dilation)).movedim(1, -1).contiguous()
        view = _windows(grad, self.groups, self.weight[2:], stride, dilation, use.x.shape[2:])
        lead = split_rows(view, n_rows, rows_first).transpose(1, 2)
        return lead.reshape(n_rows, self.groups, -1, self.shape[1])

    def to_matrix(self, weight):
        """(..., in, out/groups, *kernel) -> (..., groups, kernel*out/groups, in/groups)."""
        dims = len(self.weight) - 2
        lead = weight.shape[: weight.dim() - dims - 2]
        groups, width, inp = self.shape
        return weight.movedim(-dims - 1, -1).reshape(*lead, groups, inp, width).transpose(-1, -2)

    def from_matrix(self, matrix):
        dims = len(self.weight) - 2
        channels_last = (self.weight[0], *self.weight[2:], self.weight[1])
        return matrix.transpose(-1, -2).reshape(*matrix.shape[:-3], *channels_last).movedim(-1, -dims - 1)


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
        g = split_rows(grad.reshape(-1, self.weight[1]), n_rows, rows_first)
        if padding is not None:
            g = g.masked_fill((self.tokens(use, n_rows, rows_first) == padding).unsqueeze(-1), 0)
        return g

    def to_matrix(self, weight):
        return weight.transpose(-1, -2).unsqueeze(-3)

    def from_matrix(self, matrix):
        return matrix.squeeze(-3).transpose(-1, -2)


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
        elif use.op == "linear":
            grad = grad.reshape(-1, grad.shape[-1])
        else:
            grad = grad.reshape(-1, *self.weight)
        grad = split_rows(grad, n_rows, rows_first).sum(1)
        return _at_lines(grad, use.bias[1], self.weight[0]) if use.op == "linear" else grad


def _pads(kernel, padding, dilation):
    """Padding in ``F.pad``'s order: last dimension first, both sides."""
    pads = []
    for axis in reversed(range(len(kernel))):
        if padding == "same":
            total = dilation[axis] * (kernel[axis] - 1)
            pads += [total // 2, total - total // 2]
        elif padding == "valid":
            pads += [0, 0]
        else:
            pads += [padding[axis]] * 2
    return pads


def _windows(x, groups, kernel, stride, dilation, windows=None):
    """A view (B, groups, windows..., kernel..., C/groups) of a contiguous x (B, size..., C)."""
    size, steps = x.shape[1:-1], x.stride()[1:-1]
    if windows is None:
        windows = [(s - d * (k - 1) - 1) // st + 1 for s, k, d, st in zip(size, kernel, dilation, stride)]
    channels = x.shape[-1] // groups
    return x.as_strided(
        (x.shape[0], groups, *windows, *kernel, channels),
        (
            x.stride(0),
            channels,
            *(st * s for st, s in zip(stride, steps)),
            *(d * s for d, s in zip(dilation, steps)),
            1,
        ),
    )


def rule_of(op, weight, groups=1):
    """The rule for a weight of this shape; ``groups`` matters to convolutions."""
    if op in ("norm", "broadcast"):
        return VectorRule(tuple(weight), op)
    if op == "conv":
        return ConvRule(tuple(weight), groups)
    if op == "conv_transpose":
        return ConvTransposeRule(tuple(weight), groups)
    return {"linear": LinearRule, "embedding": EmbeddingRule}[op](tuple(weight))
