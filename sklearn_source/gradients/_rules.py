"""How one call of a layer turns into per-row gradients: inputs and output gradients with a position axis.

A rule takes the layer, its input and the gradient of its output, and returns ``a`` (B, groups, T, in) and ``g``
(B, groups, T, out) with ``G_n = sum_t g_nt a_nt^T``. Columns of a convolution are ordered (kernel..., channel): copying
whole channel vectors is what makes unfolding cheap. ``to_matrix``/``from_matrix`` hold that order in one place.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ._moments import Overlap

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def _with_ones(shape, like):
    """An empty tensor of ``shape`` with one more column, that column filled with ones: the bias's input."""
    a = like.new_empty((*shape[:-1], shape[-1] + 1))
    a[..., -1] = 1
    return a


class LinearRule:
    """``nn.Linear`` on (B, in) or (B, ..., in), also where rows and positions were flattened together."""

    def matches(self, module):
        return isinstance(module, nn.Linear)

    def inputs(self, module, x, n_rows, bias):
        x = x.detach().reshape(n_rows, 1, -1, module.in_features)  # (B, 1, T, in)
        if not bias:
            return x
        a = _with_ones(x.shape, x)
        a[..., :-1] = x
        return a

    def outputs(self, module, grad, n_rows):
        return grad.reshape(n_rows, 1, -1, module.out_features)

    def overlap(self, module, x):
        return None

    def shape(self, module):
        return (1, module.out_features, module.in_features)

    def to_matrix(self, module, weight):
        """(..., out, in) -> (..., 1, out, in)."""
        return weight.unsqueeze(-3)

    def from_matrix(self, module, matrix):
        return matrix.squeeze(-3)


class ConvRule:
    """``nn.Conv1d/2d/3d`` with stride, padding (any mode), dilation and groups."""

    def matches(self, module):
        return isinstance(module, _CONVOLUTIONS) and not module.transposed

    def shape(self, module):
        kernel = 1
        for k in module.kernel_size:
            kernel *= k
        return (module.groups, module.out_channels // module.groups, module.in_channels // module.groups * kernel)

    def _padding(self, module):
        """Padding in ``F.pad``'s order: last dimension first, both sides."""
        pads = []
        for k, d, p in zip(
            reversed(module.kernel_size),
            reversed(module.dilation),
            reversed(module.padding)
            if not isinstance(module.padding, str)
            else [module.padding] * len(module.kernel_size),
        ):
            if p == "same":
                total = d * (k - 1)
                pads += [total // 2, total - total // 2]
            elif p == "valid":
                pads += [0, 0]
            else:
                pads += [p, p]
        return pads

    def inputs(self, module, x, n_rows, bias):
        x = x.detach()
        pads = self._padding(module)
        if any(pads):
            mode = module.padding_mode
            x = F.pad(x, pads, mode="constant" if mode == "zeros" else mode)
        groups, _, width = self.shape(module)
        channels = module.in_channels // groups
        x = x.movedim(1, -1).contiguous()  # (B, *size, C): channel vectors are copied whole
        size = x.shape[1:-1]
        windows = [
            (s - d * (k - 1) - 1) // st + 1
            for s, k, d, st in zip(size, module.kernel_size, module.dilation, module.stride)
        ]
        steps = x.stride()[1:-1]
        view = x.as_strided(
            (x.shape[0], groups, *windows, *module.kernel_size, channels),
            (
                x.stride(0),
                channels,
                *(st * s for st, s in zip(module.stride, steps)),
                *(d * s for d, s in zip(module.dilation, steps)),
                1,
            ),
        )
        positions = 1
        for w in windows:
            positions *= w
        shape = (n_rows, groups, positions, width)
        if not bias:
            return view.reshape(shape)
        a = _with_ones(shape, x)
        target = a[..., :-1].unflatten(3, (*module.kernel_size, channels)).unflatten(2, windows)
        target.copy_(view)
        return a

    def overlap(self, module, x):
        """How the windows overlap along the first axis; None where no step in the kernel is a step of windows."""
        kernel, stride, dilation = module.kernel_size[0], module.stride[0], module.dilation[0]
        if dilation % stride:
            return None
        size = x.shape[2] + sum(self._padding(module)[-2:])
        return Overlap(kernel, (size - dilation * (kernel - 1) - 1) // stride + 1, dilation // stride)

    def outputs(self, module, grad, n_rows):
        groups = module.groups
        out = module.out_channels // groups
        return grad.reshape(n_rows, groups, out, -1).transpose(2, 3)  # (B, G, T, out)

    def to_matrix(self, module, weight):
        """(..., out, in/groups, *kernel) -> (..., groups, out/groups, kernel*in/groups)."""
        dims = len(module.kernel_size)
        lead = weight.shape[: weight.dim() - dims - 2]
        groups, out, width = self.shape(module)
        moved = weight.movedim(-dims - 1, -1)  # channels last
        return moved.reshape(*lead, groups, out, width)

    def from_matrix(self, module, matrix):
        lead = matrix.shape[:-3]
        shape = (module.out_channels, *module.kernel_size, module.in_channels // module.groups)
        return matrix.reshape(*lead, *shape).movedim(-1, -len(module.kernel_size) - 1)


FACTORED_RULES = (LinearRule(), ConvRule())


def leaf_gradients(module, names, x, grad):
    """Per-row gradients of a leaf module's own parameters, by ``torch.func`` on that module alone.

    Returns dict name -> (B, *parameter shape). It suits every layer that maps row ``n`` of its input to row ``n`` of
    its output (norms, embeddings, custom layers) and costs one small backward of that layer.
    """
    parameters = {name: getattr(module, name).detach() for name in names}

    def pull(row, cotangent):
        def forward(p):
            return torch.func.functional_call(module, p, (row.unsqueeze(0),)).squeeze(0)

        return torch.func.vjp(forward, parameters)[1](cotangent)[0]

    return torch.func.vmap(pull)(x.detach(), grad)
