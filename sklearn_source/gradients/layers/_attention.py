"""Multi-head attention: linear maps inside one function of torch, which is looked into."""

from __future__ import annotations

import types

import torch.nn.functional as F
from torch import nn

from ._layer_registry import ParameterSpec, specifies, substitutes
from ._linear import Linear


@specifies(nn.MultiheadAttention)
def _attention_layer(module):
    parts = [ParameterSpec(Linear, name) for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight")]
    return [ParameterSpec(Linear, "in_proj_weight", "in_proj_bias"), *parts]


def _opened(function):
    """A Python function of torch that asks first whether a mode is active, without that question.

    Run inside the mode, its inner calls are then seen one by one.
    """
    scope = {**function.__globals__, "has_torch_function": lambda *args: False}
    copy = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


if "has_torch_function" in F.multi_head_attention_forward.__code__.co_names:  # else it would come back for ever
    _FORWARD = _opened(F.multi_head_attention_forward)

    @substitutes(F.multi_head_attention_forward)
    def _attention(args, kwargs):
        return _FORWARD
