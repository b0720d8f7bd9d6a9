"""Which parameters are attributed."""

from __future__ import annotations

import difflib

import torch

from ..utils._warnings import warn


def select_parameters(module, layers=None):
    """Names of the trainable parameters that ``layers`` chooses, in ``named_parameters`` order.

    ``layers`` is None (all), a name or a list of names, each of a layer (all below it) or of a parameter. What
    ``torch.compile`` puts into names (``_orig_mod``) may be left out. A parameter that several layers share goes by
    its first name, and is chosen by any of them.
    """
    trainable, left_out = [], []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            (trainable if parameter.is_floating_point() else left_out).append(name)
    if not trainable:
        only = f" (but complex ones: {left_out})" if left_out else ""
        raise ValueError(
            f"the network has no parameter with requires_grad=True: there is nothing to attribute to{only}"
        )
    if left_out and layers is None:
        warn(f"complex parameters have no real curvature and are left out of the attribution: {left_out}")
    if layers is None:
        return trainable
    layers = layer_names(layers)
    chosen = set()
    first = {id(parameter): name for name, parameter in module.named_parameters()}
    for layer in layers:
        below = {
            first[id(parameter)]
            for name, parameter in module.named_parameters(remove_duplicate=False)
            if first[id(parameter)] in trainable and (_is_below(name, layer) or _is_below(_uncompiled(name), layer))
        }
        if not below:
            known = [name for name, _ in module.named_modules() if name] + [
                name for name, _ in module.named_parameters()
            ]
            if layer in known:
                raise ValueError(
                    f"layers: {layer!r} has no trainable parameter (requires_grad=True, and moved by the training)"
                )
            near = difflib.get_close_matches(str(layer), known, n=3) or known[:6]
            raise ValueError(f"layers: the network has no layer or parameter {layer!r}; did you mean one of {near}?")
        chosen.update(below)
    return [name for name in trainable if name in chosen]


def layer_names(layers):
    """``layers=`` as a list of names: of one, or of several.

    Parameters
    ----------
    layers : str or sequence of str

    Raises
    ------
    ValueError
        If they are something else, or none.
    """
    if isinstance(layers, str):
        return [layers]
    if not isinstance(layers, (list, tuple)) or not all(isinstance(name, str) for name in layers):
        raise ValueError(
            f"expected layers= to be the name of a layer, a list of names, or None for all, got {layers!r}"
        )
    if not layers:
        raise ValueError("expected layers= to name some, but an empty list chooses no parameter; None stands for all")
    return list(layers)


def refuse_scripts(module, names):
    """TorchScript hides how a layer uses its parameters, and takes no others for it."""
    scripts = [owner for owner, layer in module.named_modules() if isinstance(layer, torch.jit.ScriptModule)]
    scripts = [owner for owner in scripts if any(_is_below(name, owner) for name in names)]
    if scripts:
        raise ValueError(
            f"expected modules of Python, got TorchScript in {scripts}: build the net from the modules that were given "
            "to torch.jit.script or torch.jit.trace, with the same weights, or leave these out with layers="
        )


def _is_below(name, layer):
    return layer == "" or name == layer or name.startswith(f"{layer}.")


def _uncompiled(name):
    return name.replace("_orig_mod.", "")
