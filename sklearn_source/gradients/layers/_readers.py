"""How each of torch's functions names its arguments, as (op, x, weight, bias, settings) of a :class:`Use`."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ...utils._compat_torch import view_base


def _linear(input, weight, bias=None):
    return "linear", input, weight, bias, ()


def _matmul(input, other):
    if not isinstance(other, torch.Tensor) or other.dim() != 2 or input.dim() < 2:
        return "matmul", input, None, None, ()
    if view_base(other) is not None:  # x @ W.T is F.linear(x, W) without a bias
        return "linear", input, other.t(), None, ()
    return "matmul", input, other, None, ()


def _addmm(input, mat1, mat2, *, beta=1, alpha=1):
    plain = beta == 1 and alpha == 1 and view_base(mat2) is None
    return "matmul", mat1, mat2 if plain else None, input if plain else None, ()


def _bilinear(input1, input2, weight, bias=None):
    return "linear", (input1.unsqueeze(-1) * input2.unsqueeze(-2)).flatten(-2), weight, bias, ()


def _conv(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    dims = weight.dim() - 2
    padding = padding if isinstance(padding, str) else _each(padding, dims)
    return "conv", input, weight, bias, (_each(stride, dims), padding, _each(dilation, dims), groups)


def _conv_transpose(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    dims = weight.dim() - 2
    settings = (_each(stride, dims), _each(padding, dims), _each(dilation, dims), groups)
    return "conv_transpose", input, weight, bias, settings


def _each(value, dims):
    value = (value,) if isinstance(value, int) else tuple(value)
    return value * dims if len(value) == 1 else value


def _embedding(input, weight, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, sparse=False):
    settings = (None if padding_idx is None else padding_idx % len(weight), None)
    if weight.dim() == 2 and view_base(weight) is not None:
        return "embedding_transposed", input, weight.t(), None, settings
    return "embedding", input, weight, None, settings


def _embedding_bag(
    input, weight, offsets=None, max_norm=None, norm_type=2, scale_grad_by_freq=False, mode="mean", sparse=False,
    per_sample_weights=None, include_last_offset=False, padding_idx=None,
):  # fmt: skip
    if input.dim() != 2 or mode not in ("sum", "mean"):
        return "embedding", input, None, None, ()
    padding_idx = None if padding_idx is None else padding_idx % len(weight)
    share = weight.new_ones(input.shape) if per_sample_weights is None else per_sample_weights.detach()
    if mode == "mean":
        kept = torch.ones_like(input) if padding_idx is None else (input != padding_idx)
        share = share * kept / kept.sum(1, keepdim=True).clamp_min(1)
    return "embedding", input, weight, None, (padding_idx, share)


def _layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5):
    return "norm", lambda: F.layer_norm(input, normalized_shape, eps=eps), weight, bias, ("last",)


def _rms_norm(input, normalized_shape, weight=None, eps=None):
    return "norm", lambda: F.rms_norm(input, normalized_shape, eps=eps), weight, None, ("last",)


def _group_norm(input, num_groups, weight=None, bias=None, eps=1e-5):
    return "norm", lambda: F.group_norm(input, num_groups, eps=eps), weight, bias, ("channel",)


def _batch_norm(
    input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5
):  # fmt: skip
    if training:  # statistics of the batch: no row's gradient is its own, which the check will say
        return "norm", input, None, None, ()
    return "norm", lambda: F.batch_norm(input, running_mean, running_var, eps=eps), weight, bias, ("channel",)


def _instance_norm(
    input, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1, eps=1e-5
):  # fmt: skip
    def normalised():
        return F.instance_norm(input, running_mean, running_var, use_input_stats=use_input_stats, momentum=0, eps=eps)

    return "norm", normalised, weight, bias, ("channel",)


READERS = {
    F.linear: _linear, F.bilinear: _bilinear,
    torch.matmul: _matmul, torch.mm: _matmul, torch.Tensor.matmul: _matmul, torch.Tensor.__matmul__: _matmul,
    torch.addmm: _addmm, torch.Tensor.addmm: _addmm,
    F.conv1d: _conv, F.conv2d: _conv, F.conv3d: _conv,
    F.conv_transpose1d: _conv_transpose, F.conv_transpose2d: _conv_transpose, F.conv_transpose3d: _conv_transpose,
    F.embedding: _embedding, F.embedding_bag: _embedding_bag,
    F.layer_norm: _layer_norm, F.rms_norm: _rms_norm, F.group_norm: _group_norm,
    F.batch_norm: _batch_norm, F.instance_norm: _instance_norm,
}  # fmt: skip
