"""Where in a network masks can be put: found by watching one forward pass of training rows."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules import activation
from torch.overrides import TorchFunctionMode

from ...gradients import layer_names
from ...utils._compat_torch import BatchNorm, Convolution, Dropout, InstanceNorm
from ...utils._random import seeded

_DROPPING = {
    *(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout),
    *(torch.dropout, torch.alpha_dropout, torch.feature_dropout, torch.feature_alpha_dropout),
}
_ATTENTION = {F.scaled_dot_product_attention, F.multi_head_attention_forward}
_CHANNEL_DROPOUTS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.FeatureAlphaDropout)
_CHANNELS_FIRST = (Convolution, BatchNorm, InstanceNorm, nn.GroupNorm)
_NO_ACTIVATIONS = (nn.MultiheadAttention, nn.Softmax, nn.Softmin, nn.LogSoftmax, nn.Softmax2d)
_ACTIVATIONS = tuple(
    cls for name in activation.__all__ if not issubclass(cls := getattr(activation, name), _NO_ACTIVATIONS)
)


@dataclass
class Place:
    """A layer whose output can be masked.

    Attributes
    ----------
    name : str
        Of the layer, as ``named_modules`` gives it.
    p : float or None
        Of its own dropout; None where it has none.
    n_units : int
        Units that it had at most, at its calls: features, channels of maps, heads of attention.
    channels : set of int
        Numbers of axes of outputs whose units are channels, behind the rows.
    is_attention : bool
        Whether heads of attention are the units.
    """

    name: str
    p: float | None = None
    n_units: int = 0
    channels: set[int] = field(default_factory=set)
    is_attention: bool = False

    def add(self, output, is_channelled):
        """Note what came out at one call."""
        output = output[0] if isinstance(output, tuple) and output else output
        if not isinstance(output, torch.Tensor) or output.ndim < 2:
            return
        if is_channelled and output.ndim > 2:
            self.channels.add(output.ndim)
        if not self.is_attention:
            self.n_units = max(self.n_units, output.shape[1 if output.ndim in self.channels else -1])


def find_places(network, x, layers=None):
    """The places of the masks of a network.

    Parameters
    ----------
    network : Network
        A private one.
    x : batch
        Of a few training rows.
    layers : list of str, optional
        Names of the layers that masks are wanted after. None: in the place of the network's dropout; where it has none,
        after hidden activations, and where these are no modules, after hidden linear maps and convolutions.

    Returns
    -------
    places : list of Place

    Raises
    ------
    ValueError
        If there is nowhere to put masks, a layer is unknown or gave nothing that can be masked, or there is dropout
        that cannot be fixed.
    """
    watch = _Watch(network.module)
    buffers = {name: value.clone() for name, value in network.buffers().items()}
    modes = [(layer, layer.training) for layer in network.module.modules()]
    try:
        with watch, seeded(0, network.device), torch.no_grad():
            network.module.train()
            network.infer(x)
    finally:
        network.load(network.parameters(), buffers)
        for layer, mode in modes:
            layer.training = mode
    if layers is not None:
        return _named(watch, layer_names(layers))
    if watch.loose:
        what, name = watch.loose[0]
        where = repr(name) if name else "the module"
        raise ValueError(
            f"the dropout of {what} in {where} has no module of its own that a mask could take the place of: "
            "make it an nn.Dropout (the weights load as they are), or name the layers to put masks after, "
            "layers=[...], and leave it out"
        )
    own = [place for place in watch.places.values() if place.p and place.n_units]
    places = own or _hidden(watch, _ACTIVATIONS) or _hidden(watch, (nn.Linear, Convolution))
    if not places:
        raise ValueError(
            "found nowhere to put masks: the network has no dropout, no activation module and no linear layer before "
            f"another one; name layers to put them after, layers=[...], of {_some(watch.places)}"
        )
    return places


def _named(watch, names):
    """The places of that name."""
    known = dict(watch.module.named_modules())
    for name in names:
        if name not in known:
            raise ValueError(f"expected layers= to name modules of the network, got {name!r}: it has {_some(known)}")
        if name not in watch.places or not watch.places[name].n_units:
            raise ValueError(
                f"no mask can be put after {name!r}: no training row passed through it, or it returned no tensor with "
                "an axis of units; name other layers"
            )
    return [watch.places[name] for name in dict.fromkeys(names)]


def _hidden(watch, kinds):
    """The places of some kinds of layers that come before another layer with weights."""
    last = max((watch.last_call[name] for name in watch.weighted), default=-1)
    return [
        place
        for name, place in watch.places.items()
        if isinstance(watch.modules[name], kinds) and watch.first_call[name] < last and place.n_units
    ]


def _some(names):
    shown = [name for name in names if name]
    return ", ".join(map(repr, shown[:12])) + (", ..." if len(shown) > 12 else "")


class _Watch(TorchFunctionMode):
    """Notes what every layer of a module puts out, in which order, and dropout that belongs to none."""

    def __init__(self, module):
        super().__init__()
        self.module, self.modules = module, dict(module.named_modules())
        self.places: dict[str, Place] = {}
        self.first_call: dict[str, int] = {}
        self.last_call: dict[str, int] = {}
        self.weighted: set[str] = set()
        self.loose: list[tuple[str, str]] = []
        self._inside: list[str] = []
        self._channels_first = False
        self._hooks = contextlib.ExitStack()

    def __enter__(self):
        for name, layer in self.modules.items():
            before = layer.register_forward_pre_hook(lambda layer, args, name=name: self._inside.append(name))
            after = layer.register_forward_hook(lambda layer, args, out, name=name: self._leave(name, layer, out))
            for hook in (before, after):
                self._hooks.callback(hook.remove)
        return super().__enter__()

    def __exit__(self, *error):
        self._hooks.close()
        return super().__exit__(*error)

    def _leave(self, name, layer, output):
        self._inside.pop()
        calls = len(self.last_call) and max(self.last_call.values()) + 1
        self.first_call.setdefault(name, calls)
        self.last_call[name] = calls
        if isinstance(layer, nn.RNNBase) and layer.dropout and layer.num_layers > 1:
            self.loose.append((f"{type(layer).__name__} between its layers", name))
        if isinstance(layer, (*_ACTIVATIONS, Dropout)):  # weights of a PReLU are no map of units
            pass
        elif any(True for _ in layer.parameters(recurse=False)) and _is_one_layer(layer):
            self.weighted.add(name)
            self._channels_first = isinstance(layer, _CHANNELS_FIRST)
        if name not in self.places:
            heads = layer.num_heads if _has_attention_dropout(layer) else 0
            p = layer.dropout if heads else layer.p if isinstance(layer, Dropout) else None
            self.places[name] = Place(name, p, heads, is_attention=bool(heads))
        many = isinstance(layer, Dropout) and _axes(output) > 3
        self.places[name].add(output, self._channels_first or many or isinstance(layer, _CHANNEL_DROPOUTS))

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = self._inside[-1] if self._inside else ""
        if function in _DROPPING or function in _ATTENTION:
            layer = self.modules.get(name)
            known = isinstance(layer, Dropout) or _has_attention_dropout(layer)
            if not known and _drops(function, args, kwargs):
                self.loose.append((function.__name__, name))
        return function(*args, **kwargs)


def _is_one_layer(layer):
    """Whether it is no container, whose own parameters are used who knows when."""
    return not any(True for _ in layer.children()) or isinstance(layer, nn.MultiheadAttention)


def _has_attention_dropout(layer):
    return type(layer) is nn.MultiheadAttention and layer.dropout > 0


def _axes(output):
    return output.ndim if isinstance(output, torch.Tensor) else 0


def _drops(function, args, kwargs):
    """Whether a call of a function of torch leaves something out by chance."""
    if function is F.scaled_dot_product_attention:
        return (args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0)) > 0
    if function is F.multi_head_attention_forward:
        training = args[13] if len(args) > 13 else kwargs.get("training", True)
        return training and (args[10] if len(args) > 10 else kwargs["dropout_p"]) > 0
    p = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
    training = args[2] if len(args) > 2 else kwargs.get("training", kwargs.get("train", True))
    return bool(training) and p > 0
