"""Convolutions and transposed convolutions.

Columns of a convolution are ordered (kernel..., channel): copying whole channel vectors is what makes unfolding cheap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import nn

from ..algebra import Overlap
from ._factored_rule import FactoredRule
from ._layer_registry import Arguments, ParameterSpec, reads, specifies
from ._vector_rule import over_axes_after_channels


@dataclass(frozen=True)
class _OfMaps(FactoredRule):
    """What both kinds have in common: maps (B, channels, size...) come in and go out."""

    @classmethod
    def n_positions_seen(cls, x):
        """Maps, as rows are told from other axes by them."""
        return len(x)

    @classmethod
    def bias_gradient(cls, use, grad, size, layout):
        return over_axes_after_channels(grad, size, layout)


@dataclass(frozen=True)
class Convolution(_OfMaps):
    """A convolution in one, two or three dimensions, with stride, zero padding, dilation and groups."""

    joins_bias = True

    @property
    def shape(self):
        return (self.groups, self.parameter[0] // self.groups, math.prod(self.parameter[1:]))

    def inputs(self, x, settings, layout, ones=None):
        stride, padding, dilation = settings
        x = F.pad(x, _pads(self.parameter[2:], padding, dilation)).movedim(1, -1).contiguous()
        view = _windows(x, self.groups, self.parameter[2:], stride, dilation)
        dims = len(stride)
        positions = math.prod(view.shape[2 : 2 + dims])
        lead = layout.split(view)  # (B, k, G, windows..., kernel..., C)
        lead = lead.transpose(1, 2)
        shape = (layout.n_rows, self.groups, lead.shape[2] * positions, self.shape[2])
        if ones is None:
            return lead.reshape(shape)
        a = x.new_empty((*shape[:3], shape[3] + 1))
        presence = layout.presence(len(x)) if ones else None
        a[..., -1] = float(ones) if presence is None else presence.repeat_interleave(positions, 1).unsqueeze(1)
        target = a[..., :-1].unflatten(3, view.shape[2 + dims :]).unflatten(2, lead.shape[2 : 3 + dims])
        target.copy_(lead)  # no second copy of the unfolded input
        return a

    def overlap(self, x, settings):
        """Along the first axis; None where no step in the kernel is a step of windows."""
        stride, padding, dilation = settings
        kernel, stride, step = self.parameter[2], stride[0], dilation[0]
        if step % stride:
            return None
        size = x.shape[2] + sum(_pads(self.parameter[2:], padding, dilation)[-2:])
        return Overlap(kernel, (size - step * (kernel - 1) - 1) // stride + 1, step // stride)

    def outputs(self, use, grad, layout):
        g = layout.split(grad.reshape(grad.shape[0], self.groups, -1, math.prod(grad.shape[2:])))
        return g.permute(0, 2, 1, 4, 3).reshape(layout.n_rows, self.groups, -1, g.shape[3])  # (B, G, T, out)

    def to_matrix(self, value):
        """(..., out, in/groups, *kernel) -> (..., groups, out/groups, kernel*in/groups)."""
        dims = len(self.parameter) - 2
        lead = value.shape[: value.dim() - dims - 2]
        return value.movedim(-dims - 1, -1).reshape(*lead, *self.shape)

    def from_matrix(self, matrix):
        dims = len(self.parameter) - 2
        channels_last = (self.parameter[0], *self.parameter[2:], self.parameter[1])
        return matrix.reshape(*matrix.shape[:-3], *channels_last).movedim(-1, -dims - 1)


@dataclass(frozen=True)
class TransposedConvolution(_OfMaps):
    """A transposed convolution: a linear map of every input position to a window of outputs, which overlap.

    Its matrix is (groups, kernel*out/groups, in/groups); the bias, one number per output channel, is no column of it.
    """

    @property
    def shape(self):
        return (self.groups, math.prod(self.parameter[1:]), self.parameter[0] // self.groups)

    def inputs(self, x, settings, layout, ones=None):
        x = layout.split(x.reshape(x.shape[0], self.groups, -1, math.prod(x.shape[2:])))
        return x.permute(0, 2, 1, 4, 3).reshape(layout.n_rows, self.groups, -1, x.shape[3])

    def outputs(self, use, grad, layout):
        stride, padding, dilation = use.settings
        grad = F.pad(grad, _pads(self.parameter[2:], padding, dilation)).movedim(1, -1).contiguous()
        view = _windows(grad, self.groups, self.parameter[2:], stride, dilation, use.x.shape[2:])
        lead = layout.split(view).transpose(1, 2)
        return lead.reshape(layout.n_rows, self.groups, -1, self.shape[1])

    def to_matrix(self, value):
        """(..., in, out/groups, *kernel) -> (..., groups, kernel*out/groups, in/groups)."""
        dims = len(self.parameter) - 2
        lead = value.shape[: value.dim() - dims - 2]
        groups, width, inp = self.shape
        return value.movedim(-dims - 1, -1).reshape(*lead, groups, inp, width).transpose(-1, -2)

    def from_matrix(self, matrix):
        dims = len(self.parameter) - 2
        channels_last = (self.parameter[0], *self.parameter[2:], self.parameter[1])
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


def _each(value, dims):
    """A setting for every axis, from one for all or some."""
    value = (value,) if isinstance(value, int) else tuple(value)
    return value * dims if len(value) == 1 else value


@specifies(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def _convolution_layer(module):
    return [ParameterSpec(Convolution, "weight", "bias", module.groups)]


@specifies(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
def _transposed_convolution_layer(module):
    return [ParameterSpec(TransposedConvolution, "weight", "bias", module.groups)]


@reads(F.conv1d, F.conv2d, F.conv3d)
def _convolution(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    dims = weight.dim() - 2
    padding = padding if isinstance(padding, str) else _each(padding, dims)
    return Arguments(Convolution, input, weight, bias, (_each(stride, dims), padding, _each(dilation, dims)), groups)


@reads(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
def _transposed_convolution(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    dims = weight.dim() - 2
    settings = (_each(stride, dims), _each(padding, dims), _each(dilation, dims))
    return Arguments(TransposedConvolution, input, weight, bias, settings, groups)
