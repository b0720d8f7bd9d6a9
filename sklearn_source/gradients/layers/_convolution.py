"""The rules of convolutions and transposed convolutions.

Columns of a convolution are ordered (kernel..., channel): copying whole channel vectors is what makes unfolding cheap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F

from ..algebra import Overlap
from ._row_layout import split_rows


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

    def overlap(self, x, settings):
        """How the windows overlap along the first axis; None where no step in the kernel is a step of windows."""
        stride, padding, dilation, _ = settings
        kernel, stride, step = self.weight[2], stride[0], dilation[0]
        if step % stride:
            return None
        size = x.shape[2] + sum(_pads(self.weight[2:], padding, dilation)[-2:])
        return Overlap(kernel, (size - step * (kernel - 1) - 1) // stride + 1, step // stride)

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

    def overlap(self, x, settings):
        return None

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
