"""Norms: the scale and the shift of what was normalised."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from ...utils._compat_torch import BatchNorm, InstanceNorm
from ._layer_registry import Arguments, ParameterSpec, reads, specifies
from ._vector_rule import Shift, VectorRule, over_axes_after_channels, over_leading_axes


@dataclass(frozen=True)
class Scale(VectorRule):
    """What multiplies the normalised input; ``settings`` holds the function that sums over positions."""

    bias_rule = Shift

    def of_use(self, use, grad, layout):
        if callable(use.x):  # once for all pulls of this capture
            with torch.no_grad():
                use.x = use.x()
        return self.bias_gradient(use, grad * use.x, self.parameter, layout)

    @classmethod
    def bias_gradient(cls, use, grad, size, layout):
        (over_positions,) = use.settings
        return over_positions(grad, size, layout)


@specifies(nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, BatchNorm, InstanceNorm)
def _norm_layer(module):
    return [ParameterSpec(Scale, "weight", "bias")]


@reads(F.layer_norm)
def _layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5):
    def normalised():
        return F.layer_norm(input, normalized_shape, eps=eps)

    return Arguments(Scale, normalised, weight, bias, (over_leading_axes,))


@reads(F.rms_norm)
def _rms_norm(input, normalized_shape, weight=None, eps=None):
    return Arguments(Scale, lambda: F.rms_norm(input, normalized_shape, eps=eps), weight, settings=(over_leading_axes,))


@reads(F.group_norm)
def _group_norm(input, num_groups, weight=None, bias=None, eps=1e-5):
    def normalised():
        return F.group_norm(input, num_groups, eps=eps)

    return Arguments(Scale, normalised, weight, bias, (over_axes_after_channels,))


@reads(F.batch_norm)
def _batch_norm(input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    if training:  # statistics of the batch: no row's gradient is its own, which the check will say
        return None

    def normalised():
        return F.batch_norm(input, running_mean, running_var, eps=eps)

    return Arguments(Scale, normalised, weight, bias, (over_axes_after_channels,))


@reads(F.instance_norm)
def _instance_norm(
    input, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1, eps=1e-5
):  # fmt: skip
    def normalised():
        return F.instance_norm(input, running_mean, running_var, use_input_stats=use_input_stats, momentum=0, eps=eps)

    return Arguments(Scale, normalised, weight, bias, (over_axes_after_channels,))
