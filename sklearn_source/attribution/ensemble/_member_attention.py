"""Multi-head attention with its two linear maps done outside of it, so that something may stand between."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F


def attend(layer, query, key, value, project, scale, options):
    """What a layer of attention returns, given what comes before and after the attention itself.

    Parameters
    ----------
    layer : MultiheadAttention
    query, key, value : Tensor
        As its ``forward`` takes them.
    project : callable or None
        Maps the three, positions first, to three of the width of the layer; None: by the layer's own weights.
    scale : Tensor (embed_dim,) or None
        Multiplies what the heads give, side by side, before the map out of them; None: nothing does.
    options : dict
        The other arguments of ``forward``.

    Returns
    -------
    output : Tensor
    weights : Tensor or None
    """
    transposed = layer.batch_first and query.dim() == 3
    if transposed:  # torch sees by identity that the three are one
        turned = {id(x): x.transpose(0, 1) for x in (query, key, value)}
        query, key, value = (turned[id(x)] for x in (query, key, value))
    separate = layer.in_proj_weight is None
    weights: dict[str, Any] = {"in_proj_weight": layer.in_proj_weight, "in_proj_bias": layer.in_proj_bias}
    if separate:
        weights.update({name: getattr(layer, name) for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight")})
    same = torch.eye(layer.embed_dim, dtype=query.dtype, device=query.device)
    if project is not None:
        query, key, value = project(query, key, value)
        separate = False
        weights = {"in_proj_weight": same.repeat(3, 1), "in_proj_bias": None}
    heads, attention = F.multi_head_attention_forward(
        query,
        key,
        value,
        layer.embed_dim,
        layer.num_heads,
        bias_k=layer.bias_k,
        bias_v=layer.bias_v,
        add_zero_attn=layer.add_zero_attn,
        dropout_p=layer.dropout,
        out_proj_weight=same if scale is None else same * scale.to(same),
        out_proj_bias=None,
        training=layer.training,
        use_separate_proj_weight=separate,
        **weights,
        **options,
    )
    output = layer.out_proj(heads)
    return (output.transpose(0, 1) if transposed else output), attention
