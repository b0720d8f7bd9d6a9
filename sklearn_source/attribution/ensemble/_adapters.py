"""Low-rank adapters beside frozen layers (Hu et al. 2021), made of layers whose per-row gradients are known."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn

from ...gradients import layer_names
from ._member_attention import attend


class Frozen:
    """Tensors of a layer that copies of it share, and that are no parameters."""

    def __init__(self, tensors):
        self.tensors = tensors

    def __deepcopy__(self, memo):
        return self


class Adapter(nn.Module):
    """``scale * up(down(x))``, which is zero before the first step of training."""

    def __init__(self, down, up, scale):
        super().__init__()
        nn.init.zeros_(up.weight)
        self.down, self.up, self.scale = down, up, scale

    def forward(self, x):
        return self.scale * self.up(self.down(x))


class _Adapted:
    """In front of a layer's class: its own parameters are in ``frozen``, and an adapter adds to what it returns."""

    def forward(self, x):
        return super().forward(x) + self.adapter(x)

    def __getattr__(self, name):
        frozen = self.__dict__.get("frozen")
        return frozen.tensors[name] if frozen and name in frozen.tensors else super().__getattr__(name)

    def adapters(self, rank, scale):
        """New adapters by the names of the sub-modules that they become."""
        return {"adapter": self._adapter(rank, scale)}


class AdaptedLinear(_Adapted, nn.Linear):
    """``nn.Linear`` beside (r, in) and (out, r)."""

    def _adapter(self, rank, scale):
        return _linear_adapter(self.in_features, self.out_features, rank, scale)


class AdaptedEmbedding(_Adapted, nn.Embedding):
    """``nn.Embedding`` beside a table (V, r) and a linear map (d, r)."""

    def _adapter(self, rank, scale):
        rank = min(rank, self.embedding_dim)
        down = nn.Embedding(self.num_embeddings, rank, padding_idx=self.padding_idx)
        with torch.no_grad():
            down.weight.mul_(rank**-0.5)  # of length about one, as what a linear adapter looks at
        return Adapter(down, nn.Linear(rank, self.embedding_dim, bias=False), scale)


class _AdaptedConvolution(_Adapted):
    def _adapter(self, rank, scale):
        rank = min(rank, self.out_channels)
        kind = nn.Conv1d if isinstance(self, nn.Conv1d) else nn.Conv2d
        down = kind(
            self.in_channels, rank, self.kernel_size, stride=self.stride, padding=self.padding, dilation=self.dilation,
            padding_mode=self.padding_mode, bias=False,
        )  # fmt: skip
        return Adapter(down, kind(rank, self.out_channels, 1, bias=False), scale)


class AdaptedConv1d(_AdaptedConvolution, nn.Conv1d):
    """``nn.Conv1d`` beside one with r channels and a pointwise one."""


class AdaptedConv2d(_AdaptedConvolution, nn.Conv2d):
    """``nn.Conv2d`` beside one with r channels and a pointwise one."""


class AdaptedAttention(_Adapted, nn.MultiheadAttention):
    """``nn.MultiheadAttention`` with an adapter beside each of the three maps into it; ``out_proj`` has its own."""

    def forward(self, query, key, value, **options):
        return attend(self, query, key, value, self._project, None, options)

    def _project(self, *given):
        if self.in_proj_weight is None:
            weights = self.q_proj_weight, self.k_proj_weight, self.v_proj_weight
        else:
            weights = self.in_proj_weight.chunk(3)
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        adapters = self.q_adapter, self.k_adapter, self.v_adapter
        return [F.linear(x, W, b) + adapter(x) for x, W, b, adapter in zip(given, weights, biases, adapters)]

    def adapters(self, rank, scale):
        widths = {"q_adapter": self.embed_dim, "k_adapter": self.kdim, "v_adapter": self.vdim}
        return {name: _linear_adapter(width, self.embed_dim, rank, scale) for name, width in widths.items()}


def _linear_adapter(n_in, n_out, rank, scale):
    rank = min(rank, n_in, n_out)
    return Adapter(nn.Linear(n_in, rank, bias=False), nn.Linear(rank, n_out, bias=False), scale)


_KINDS = {
    nn.Linear: AdaptedLinear,
    nn.Embedding: AdaptedEmbedding,
    nn.Conv1d: AdaptedConv1d,
    nn.Conv2d: AdaptedConv2d,
    nn.MultiheadAttention: AdaptedAttention,
}


def freeze(module, layers=None):
    """Turn all parameters of a network into constants, and choose the layers that adapters go beside; in place.

    Parameters
    ----------
    module : Module
        A copy.
    layers : list of str, optional
        Names of layers, or of modules that hold them. None: all that have trainable weights.

    Raises
    ------
    ValueError
        If a layer is unknown or of a kind that has no adapter, or none is left.
    """
    chosen = _chosen(module, layers)
    module.requires_grad_(False)
    for layer in list(module.modules()):
        own = {name: p.detach() for name, p in layer.named_parameters(recurse=False, remove_duplicate=False)}
        for name in own:
            delattr(layer, name)
        if layer in chosen:
            layer.__class__ = chosen[layer]
            layer.frozen = Frozen(own)
        else:
            vars(layer).update(own)


def with_adapters(module, rank, scale):
    """A copy of what :func:`freeze` made, with new adapters drawn from the global generator of torch.

    Parameters
    ----------
    module : Module
    rank : int
        At most that of the layer.
    scale : float

    Returns
    -------
    module : Module
        Its parameters are those of the adapters alone.
    """
    module = copy.deepcopy(module)
    for layer in list(module.modules()):
        if isinstance(layer, _Adapted):
            like = next(iter(layer.frozen.tensors.values()))
            for name, adapter in layer.adapters(rank, scale).items():
                layer.add_module(name, adapter.to(like))
    return module


def _chosen(module, layers):
    """Layer -> the class that it gets."""
    known = dict(module.named_modules())
    named = None if layers is None else layer_names(layers)
    chosen = {}
    for name in [""] if named is None else named:
        if name not in known:
            shown = ", ".join(repr(n) for n in list(known)[1:13])
            raise ValueError(f"expected layers= to name modules of the network, got {name!r}: it has {shown}")
        below = {layer: kind for layer in known[name].modules() for kind in _kinds(layer, frozen_too=bool(named))}
        found = {part: kind for layer in below for part, kind in _parts(layer, below[layer])}
        if not found:
            what = f"{name!r}, a {type(known[name]).__name__}" if name else "any layer of the network"
            raise ValueError(
                f"there is no adapter for {what}: expected trainable nn.Linear, nn.Embedding, nn.Conv1d or nn.Conv2d "
                "without groups or max_norm, or nn.MultiheadAttention; name others, layers=[...]"
            )
        chosen.update(found)
    return chosen


def _kinds(layer, frozen_too):
    """The class that a layer gets, as a list of one; of none where it has no adapter, or was frozen by the user."""
    trainable = frozen_too or any(p.requires_grad for p in layer.parameters())
    fits = type(layer) in _KINDS and getattr(layer, "groups", 1) == 1 and getattr(layer, "max_norm", None) is None
    return [_KINDS[type(layer)]] if fits and trainable else []


def _parts(layer, kind):
    """(layer, class) of what is to be changed together."""
    return [(layer, kind), (layer.out_proj, AdaptedLinear)] if kind is AdaptedAttention else [(layer, kind)]
