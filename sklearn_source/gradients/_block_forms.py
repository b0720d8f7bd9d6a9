"""What form the gradient of a parameter can be had in: by the kind of its layer, or by what was seen to use it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from torch import nn

from ..utils._compat_torch import BatchNorm, InstanceNorm

_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, BatchNorm, InstanceNorm)


@dataclass(frozen=True)
class Claim:
    """A weight of a layer and the bias that goes with it: either may be None. ``op`` is as in :class:`Use`."""

    op: str
    weight: str | None
    bias: str | None = None
    groups: int = 1


def claims_of(module):
    """The claims that a layer's kind makes on its own parameters (names within the layer)."""
    if isinstance(module, (nn.Linear, nn.Bilinear)):
        return [Claim("linear", "weight", "bias")]
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        op = "conv_transpose" if module.transposed else "conv"
        return [Claim(op, "weight", "bias", module.groups)]
    if isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        return [Claim("conv_transpose", "weight", "bias", module.groups)]
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return [Claim("embedding", "weight")]
    if isinstance(module, _NORMS):
        return [Claim("norm", "weight"), Claim("norm", None, "bias")]
    if isinstance(module, nn.MultiheadAttention):
        parts = [Claim("linear", name) for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight")]
        return [Claim("linear", "in_proj_weight", "in_proj_bias"), *parts]
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        weights = [name for name, _ in module.named_parameters(recurse=False) if name.startswith("weight_")]
        return [Claim("linear", name, name.replace("weight_", "bias_")) for name in weights]
    return []


def observed_claims(uses, names):
    """Claims on the parameters ``names`` from the uses of one forward pass (names within the network)."""
    found, partners = {}, defaultdict(set)
    for use in uses:
        weight, bias = (part and part[0] for part in (use.weight, use.bias))
        if weight in names:
            partners[weight].add(bias if bias in names else None)
            found.setdefault(weight, set()).add((use.op, use.groups))
        if bias in names and use.op != "norm":
            partners[bias].add(weight)
    claims = []
    for weight, kinds in found.items():
        bias = next(iter(partners[weight])) if len(kinds) == len(partners[weight]) == 1 else None
        bias = bias if bias and partners[bias] == {weight} else None
        claims += [Claim(op, weight, bias, groups) for op, groups in sorted(kinds)]
    return claims


def refuse_frequencies(module, names):
    """An embedding that divides gradients by frequencies in the batch follows no row's loss."""
    for owner, layer in module.named_modules():
        name = f"{owner}.weight" if owner else "weight"
        if name in names and getattr(layer, "scale_grad_by_freq", False):
            raise ValueError(
                f"{name!r} was trained with scale_grad_by_freq=True: its steps divided the gradient of a token by how "
                "often it occurs in the batch, so that they belong to no row's loss. Train with "
                "scale_grad_by_freq=False, or leave it out with layers="
            )
