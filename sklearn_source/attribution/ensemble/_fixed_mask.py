"""Masks that stay: what dropout does in training to one row, done to all rows alike."""

from __future__ import annotations

from torch import nn

from ...utils._compat_torch import Dropout
from ...utils._counter_random import row_uniforms
from ...utils._digest import bytes_digest
from ._member_attention import attend

# What SELU tends to far below zero, minus lambda times alpha: what alpha dropout puts in the place of a unit.
_SATURATED = -1.7580993408473766


class FixedMask(Dropout):
    """Multiplies every unit by a number of its own, in evaluation mode; in training mode it is what it stands for.

    In the class of torch's dropouts because it has their modes: where the package has a network behave as in training
    but for chance, masks stay.

    Parameters
    ----------
    scale, shift : Tensor (n_units,)
        ``x * scale + shift``; shift may be None.
    channels : tuple of int
        Numbers of axes of inputs whose units are along the axis behind the rows' (channels of maps); of all others they
        are along the last, and share their numbers over the positions.
    dropout : Module, optional
        What it stands for; None: nothing.
    """

    def __init__(self, scale, shift=None, channels=(), dropout=None):
        super().__init__()
        self.scale, self.shift, self.channels = scale, shift, tuple(channels)
        self.dropout = dropout

    def extra_repr(self):
        return f"{int((self.scale != 0).sum())} of {len(self.scale)} units kept"

    def forward(self, x):
        if self.training:
            return x if self.dropout is None else self.dropout(x)
        if x.ndim < 2:
            return x
        axis = 1 if x.ndim in self.channels else x.ndim - 1
        masked = x * _along(self.scale, x, axis)
        return masked if self.shift is None else masked + _along(self.shift, x, axis)


def _along(values, x, axis):
    """The first of some values, along an axis of ``x``."""
    n = x.shape[axis]
    if n > len(values):
        raise ValueError(
            f"expected at most {len(values)} units, as the training rows have them, got {n}: rows of another width "
            "have units without a mask"
        )
    return values[:n].to(x).reshape(-1, *[1] * (x.ndim - 1 - axis))


class MaskedAttention(nn.MultiheadAttention):
    """``nn.MultiheadAttention`` some of whose heads are left out, in evaluation mode."""

    def forward(self, query, key, value, **options):
        if self.training:
            return super().forward(query, key, value, **options)
        return attend(self, query, key, value, None, self.head_scale.repeat_interleave(self.head_dim), options)


class MaskOutput:
    """Forward hook: the mask of a layer after it, on the first of several outputs."""

    is_part_of_module = True

    def __call__(self, layer, args, output):
        if isinstance(output, tuple):
            return (layer.fixed_mask(output[0]), *output[1:])
        return layer.fixed_mask(output)


def put_mask(module, place, p, key):
    """Mask what comes out of a layer of a network, in place; no name of a parameter or buffer changes.

    Parameters
    ----------
    module : Module
        The network, a copy.
    place : Place
        Of :func:`find_places`.
    p : float
        Probability of a unit to be left out.
    key : tuple of int
        Seed and number of the member. The mask depends on it and on the name of the layer, and on nothing else.
    """
    layer = module.get_submodule(place.name)
    keep = (_uniforms(place, key) >= p).double()
    scale = keep / (1 - p) if p < 1 else keep
    shift = None
    if isinstance(layer, (nn.AlphaDropout, nn.FeatureAlphaDropout)):
        factor = ((1 - p) * (1 + p * _SATURATED**2)) ** -0.5
        scale, shift = keep * factor, (1 - keep - p) * _SATURATED * factor
    if place.is_attention:
        layer.head_scale = scale
        layer.__class__ = MaskedAttention
        return
    mask = FixedMask(scale, shift, place.channels, layer if isinstance(layer, Dropout) else None)
    if isinstance(layer, Dropout):
        for name in [name for name, part in module.named_modules(remove_duplicate=False) if part is layer]:
            parent, _, own = name.rpartition(".")
            setattr(module.get_submodule(parent), own, mask)
    elif isinstance(layer, nn.Sequential):
        layer.append(mask)
    else:
        layer.add_module("fixed_mask", mask)
        layer.register_forward_hook(MaskOutput())


def _uniforms(place, key):
    seed, member = key
    layer = int(bytes_digest(place.name.encode())[:16], 16)
    return row_uniforms([layer], (place.n_units,), seed=seed, draw=member)[0]
