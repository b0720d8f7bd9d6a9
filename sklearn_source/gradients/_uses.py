"""Where a parameter is used in a forward pass: seen as torch's functions are called, whichever module calls them."""

from __future__ import annotations

import types

import torch
import torch.nn.functional as F
from torch.autograd.graph import get_gradient_edge
from torch.overrides import TorchFunctionMode

from ._recurrent import unrolled


class Use:
    """One use of parameters by one function: what went in, and where the gradient of what came out arrives.

    Attributes
    ----------
    op : str
        ``"linear"``, ``"conv"``, ``"conv_transpose"``, ``"embedding"`` or ``"norm"``.
    x : Tensor
        The function's input; of an embedding the indices, of a norm the normalised input.
    weight, bias : (str, int) or None
        Name of the parameter and the line at which the used part of it starts.
    settings : tuple
        What else the function was told.
    edge : torch.autograd.graph.GradientEdge
        The edge, not the output, is kept: a later in-place operation rewrites the output but not the edge.
    """

    __slots__ = ("op", "x", "weight", "bias", "settings", "edge", "like", "shape")

    def __init__(self, op, x, weight, bias, settings, output):
        self.op, self.x, self.weight, self.bias, self.settings = op, x, weight, bias, settings
        self.edge, self.like, self.shape = get_gradient_edge(output), output.new_empty(0), output.shape

    def zeros(self):
        return self.like.new_zeros(self.shape)


# --- how each function names its arguments: (op, x, weight, bias, settings) ------------------------------------------


def _linear(input, weight, bias=None):
    return "linear", input, weight, bias, ()


def _matmul(input, other):
    # x @ W.T is F.linear(x, W) without a bias; any other product of a parameter is left to the dense way.
    transposed = isinstance(other, torch.Tensor) and other.dim() == 2 and other.stride(0) == 1
    return "linear", input, other.t() if transposed else None, None, ()


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
    return "embedding", input, weight, None, (None if padding_idx is None else padding_idx % len(weight), None)


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
    torch.matmul: _matmul, torch.Tensor.matmul: _matmul, torch.Tensor.__matmul__: _matmul,
    F.conv1d: _conv, F.conv2d: _conv, F.conv3d: _conv,
    F.conv_transpose1d: _conv_transpose, F.conv_transpose2d: _conv_transpose, F.conv_transpose3d: _conv_transpose,
    F.embedding: _embedding, F.embedding_bag: _embedding_bag,
    F.layer_norm: _layer_norm, F.rms_norm: _rms_norm, F.group_norm: _group_norm,
    F.batch_norm: _batch_norm, F.instance_norm: _instance_norm,
}  # fmt: skip


def _opened(function):
    """A Python function of torch that asks first whether a mode is active, without that question.

    Run inside the mode, its inner calls are then seen one by one.
    """
    scope = {**function.__globals__, "has_torch_function": lambda *args: False}
    copy = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


OPENED = {
    function: _opened(function)
    for function in (F.multi_head_attention_forward,)
    if "has_torch_function" in function.__code__.co_names  # else it would ask, and be sent here, for ever
}


class Recorder(TorchFunctionMode):
    """Notes in ``uses`` every use of the ``watched`` parameters that one of :data:`READERS` understands.

    Parameters
    ----------
    watched : dict of int to str
        ``id(parameter)`` to its name.
    """

    def __init__(self, watched):
        super().__init__()
        self._watched, self.uses = watched, []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in OPENED:
            with self:
                return OPENED[func](*args, **kwargs)
        steps = unrolled(func, args, kwargs)
        if steps is not None and self._watches_any(args):
            with self:
                return steps(*args, **kwargs)
        output = func(*args, **kwargs)
        if func in READERS and isinstance(output, torch.Tensor) and output.requires_grad:
            op, x, weight, bias, settings = READERS[func](*args, **kwargs)
            weight, bias = self._resolve(weight), self._resolve(bias)
            if weight is not None or bias is not None:
                self.uses.append(Use(op, x, weight, bias, settings, output))
        return output

    def _watches_any(self, args):
        return any(id(w) in self._watched for arg in args for w in (arg if isinstance(arg, (list, tuple)) else [arg]))

    def _resolve(self, tensor):
        """(name, first line) of a parameter, or of a part of one that is some of its lines."""
        if not isinstance(tensor, torch.Tensor):
            return None
        if id(tensor) in self._watched:
            return self._watched[id(tensor)], 0
        base = tensor._base
        if base is None or id(base) not in self._watched or not base.numel() or base.dim() != tensor.dim():
            return None
        if tensor.shape[1:] != base.shape[1:] or tensor.stride() != base.stride():
            return None
        return self._watched[id(base)], (tensor.storage_offset() - base.storage_offset()) // base.stride(0)
