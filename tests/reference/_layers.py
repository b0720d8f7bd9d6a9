"""Inputs a, output gradients g and gradient matrices G_n of Linear and ConvNd layers, row by row."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import nn

from ._dense import call, make_layout, n_rows, one_row

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
FACTORED = (nn.Linear, nn.Embedding, *CONVOLUTIONS, *TRANSPOSED)


@dataclass
class LayerGroup:
    """One gradient matrix (out, in[+1]): a Linear layer, or one group of a convolution; bias is the last column.

    ``index`` holds the flat positions of its entries; ``inputs[n]`` is (positions, in[+1]); ``output_gradients[n][c]``
    is (positions, out); ``matrices[n][c] = sum_t g_t a_t^T``.
    """

    label: str
    index: torch.Tensor
    inputs: list[torch.Tensor]
    output_gradients: list[list[torch.Tensor]]

    @property
    def matrices(self) -> list[list[torch.Tensor]]:
        return [
            [sum(torch.outer(g[t], a[t]) for t in range(len(a))) for g in columns]
            for a, columns in zip(self.inputs, self.output_gradients, strict=True)
        ]


def padding_before(conv) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding before and after each spatial dimension as numbers, whatever way the layer spells it."""
    if conv.padding == "valid":
        zero = (0,) * len(conv.kernel_size)
        return zero, zero
    if conv.padding == "same":
        total = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        return tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    return tuple(conv.padding), tuple(conv.padding)


def source_coordinate(i, size, mode):
    """The input coordinate that padded coordinate ``i`` reads, or None where the padding is zero."""
    if 0 <= i < size:
        return i
    if mode == "zeros":
        return None
    if mode == "circular":
        return i % size
    if mode == "replicate":
        return min(max(i, 0), size - 1)
    return -i if i < 0 else 2 * (size - 1) - i  # reflect


def unfold(conv, x, group=0) -> torch.Tensor:
    """(positions, in/groups * k1 * k2 ...) patches of one row ``x`` (1, channels, *spatial), by explicit index loops.

    Columns in the order of ``conv.weight[0].reshape(-1)``, positions in the order of the flattened output.
    """
    spatial = x.shape[2:]
    width = conv.in_channels // conv.groups
    before, after = padding_before(conv)
    out_spatial = [
        (size + b + e - d * (k - 1) - 1) // s + 1
        for size, b, e, d, k, s in zip(
            spatial, before, after, conv.dilation, conv.kernel_size, conv.stride, strict=True
        )
    ]
    offsets = list(itertools.product(*[range(k) for k in conv.kernel_size]))
    rows = []
    for position in itertools.product(*[range(size) for size in out_spatial]):
        row = []
        for channel in range(group * width, (group + 1) * width):
            for offset in offsets:
                where = [
                    source_coordinate(p * s + k * d - b, size, conv.padding_mode)
                    for p, s, k, d, b, size in zip(
                        position, conv.stride, offset, conv.dilation, before, spatial, strict=True
                    )
                ]
                row.append(x.new_zeros(()) if None in where else x[(0, channel, *where)])
        rows.append(torch.stack(row))
    return torch.stack(rows)


def windows(conv, x, g, group=0) -> torch.Tensor:
    """(input positions, k1 * k2 ... * out/groups) output gradients under each input position of a ConvTranspose."""
    width = conv.out_channels // conv.groups
    rows = []
    for position in itertools.product(*[range(size) for size in x.shape[2:]]):
        row = []
        for offset in itertools.product(*[range(k) for k in conv.kernel_size]):
            where = [
                p * s + k * d - b
                for p, s, k, d, b in zip(position, conv.stride, offset, conv.dilation, conv.padding, strict=True)
            ]
            inside = all(0 <= w < size for w, size in zip(where, g.shape[2:], strict=True))
            for channel in range(group * width, (group + 1) * width):
                row.append(g[(0, channel, *where)] if inside else g.new_zeros(()))
        rows.append(torch.stack(row))
    return torch.stack(rows)


def capture(module, params, layer, x):
    """Run one row; return its output and, per call of ``layer``, the layer's input and a zero added to its output.

    The gradient in that added zero is the gradient in the layer's output, with no reference to its parameters.
    """
    inputs, zeros = [], []

    def hook(_, args, output):
        inputs.append(args[0].detach())
        zeros.append(torch.zeros_like(output, requires_grad=True))
        return output + zeros[-1]

    handle = module.get_submodule(layer).register_forward_hook(hook)
    try:
        output = call(module, params, x)
    finally:
        handle.remove()
    return output, inputs, zeros


def input_positions(submodule, x, group, with_bias) -> torch.Tensor:
    """(positions, in[+1]) inputs of one call on one row; an embedding's are one-hot vectors."""
    if isinstance(submodule, nn.Embedding):
        return nn.functional.one_hot(x.reshape(-1), submodule.num_embeddings).double()
    if isinstance(submodule, TRANSPOSED):
        width = submodule.in_channels // submodule.groups
        return x[0, group * width : (group + 1) * width].reshape(width, -1).T
    a = unfold(submodule, x, group) if isinstance(submodule, CONVOLUTIONS) else x.reshape(-1, x.shape[-1])
    return torch.cat([a, a.new_ones(len(a), 1)], dim=1) if with_bias else a


def gradient_positions(submodule, x, g, group) -> torch.Tensor:
    """(positions, out) output gradients of one call on one row, in the order of ``input_positions``."""
    if isinstance(submodule, TRANSPOSED):
        return windows(submodule, x, g, group)
    if isinstance(submodule, CONVOLUTIONS):
        out = submodule.out_channels // submodule.groups
        return g[0, group * out : (group + 1) * out].reshape(out, -1).T
    g = g.expand(*x.shape, -1) if isinstance(submodule, nn.Embedding) else g
    g = g.reshape(-1, g.shape[-1])
    if isinstance(submodule, nn.Embedding) and submodule.padding_idx is not None:
        g = g * (x.reshape(-1, 1) != submodule.padding_idx)
    return g


def joins_bias(submodule, layer, layout):
    """Whether the layer's bias is the last column of its weight's matrix."""
    return isinstance(submodule, (nn.Linear, *CONVOLUTIONS)) and f"{layer}.bias" in layout.names


def layer_index(submodule, layer, layout, group, with_bias) -> torch.Tensor:
    """(out, in[+1]) flat positions of the layer's (or the group's) weight, and of its bias as the last column."""
    weight = layout.indices(f"{layer}.weight")
    if isinstance(submodule, nn.Embedding):
        return weight.T
    groups = getattr(submodule, "groups", 1)
    out = weight.shape[0] // groups
    part = weight[group * out : (group + 1) * out]
    if isinstance(submodule, TRANSPOSED):  # (in, out, k...) -> (k... * out, in)
        return part.movedim(1, -1).reshape(out, -1).T
    index = part.reshape(out, -1)
    if with_bias:
        bias = layout.indices(f"{layer}.bias")[group * out : (group + 1) * out]
        index = torch.cat([index, bias[:, None]], dim=1)
    return index


def layer_gradient_matrices(module, params, layer, columns_fn, X, y=None, names=None, others=()) -> list[LayerGroup]:
    """The ``LayerGroup`` s of a ``layer``: one, or one per group of a grouped convolution.

    A layer called several times in one forward pass has the positions of all its calls; a weight that ``others`` share,
    those of all of them, and then no bias. The per-row loss gradient is ``columns_fn = empirical_columns(loss_fn)``
    (one column).
    """
    submodule = module.get_submodule(layer)
    layout = make_layout(module, params, names)
    with_bias = not others and joins_bias(submodule, layer, layout)
    result = []
    for group in range(getattr(submodule, "groups", 1)):
        label = layer if getattr(submodule, "groups", 1) == 1 else f"{layer}[{group}]"
        result.append(LayerGroup(label, layer_index(submodule, layer, layout, group, with_bias), [], []))
    for n in range(n_rows(X)):
        found = []  # (input, its output's gradient for every column) of every call
        for name in (layer, *others):
            output, inputs, zeros = capture(module, params, name, one_row(X, n))
            if not zeros:
                raise ValueError(f"layer {name!r} was not called in the forward pass: treat its parameters as dense")
            grads = [
                torch.autograd.grad((output * b).sum(), zeros, retain_graph=True, materialize_grads=True)
                for b in columns_fn(output.detach(), one_row(y, n))
            ]
            found += zip(inputs, zip(*grads))
        for group, matrix in enumerate(result):
            matrix.inputs.append(torch.cat([input_positions(submodule, x, group, with_bias) for x, _ in found]))
            calls = [[gradient_positions(submodule, x, g, group) for g in gs] for x, gs in found]
            matrix.output_gradients.append([torch.cat(column) for column in zip(*calls)])
    return result
