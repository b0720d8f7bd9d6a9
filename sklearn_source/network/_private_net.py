"""A private, inert copy of a skorch net: its `infer`, `get_loss` and `get_dataset` around copied modules."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping

import torch

from ..utils._compat_skorch import criterion_names, module_names, optimizer_names
from ..utils._compat_torch import HOOKS
from ..utils._warnings import warn
from ._pickling import net_from_state
from ._private_module import Uncompiled, keep_weights, skip_compilation, widen


class PrivateNet:
    """A skorch net without optimizer and callbacks, pickled by its state: see :func:`net_from_state`.

    Parameters
    ----------
    cls : type
        The net's class, so that its overrides are honoured.
    state : dict
        What becomes the ``__dict__`` of the private net.
    """

    def __init__(self, cls, state):
        self.cls, self.state = cls, state
        self.net = net_from_state(cls, state)

    def __reduce__(self):
        return PrivateNet, (self.cls, self.state)

    def with_criterion(self, criterion):
        """The same net, sharing everything but its criterion."""
        return PrivateNet(self.cls, {**self.state, "criterion_": criterion})

    @classmethod
    def from_net(cls, net):
        """Copy what `infer` and `get_loss` need from an initialized net; the net itself is only read."""
        state = dict(vars(net))
        for name in optimizer_names(net) or ():
            state.pop(f"{name}_", None)
        # The callbacks and the split may hold files, data or closures, and nothing here calls them.
        state.update(callbacks=None, callbacks_=[], train_split=None, virtual_params_={})
        given = [*module_names(net), *criterion_names(net)]
        for name in given:
            if isinstance(state.get(name), torch.nn.Module):
                state[name] = None  # an instance given by the user: the private copy below stands for it
        names = [f"{name}_" for name in given]
        originals = [state[name] for name in names]
        modules = [m for part in originals if isinstance(part, torch.nn.Module) for m in part.modules()]
        memo = {}
        for module in modules:
            _skip_hooks(module, memo)
            detach_leftovers(vars(module), memo)
        try:
            skip_compilation(modules, memo)
            copies = copy.deepcopy(originals, memo)
        except Exception as error:
            raise TypeError(
                f"expected a net whose module and criterion can be copied, but copy.deepcopy failed ({error}): remove "
                "what cannot be copied (locks, open files, generators) from the module's attributes"
            ) from error
        halves = set()
        for name, part in zip(names, copies):
            if isinstance(part, Uncompiled) and name.removesuffix("_") in criterion_names(net):
                part = part._orig_mod  # what kind of loss it is can be seen there
            if isinstance(part, torch.nn.Module):
                part.eval()
                keep_weights(part)
                halves |= widen(part)
            state[name] = part
        _train_criteria(
            [state[f"{name}_"] for name in criterion_names(net)], [state[f"{n}_"] for n in module_names(net)]
        )
        if halves:
            warn(
                f"weights of the network are {', '.join(sorted(halves))}: gradients are formed in float32, but what "
                "the rounding of the weights did to the steps of the training is in no score. Train float32 weights "
                "under torch.autocast to avoid it"
            )
        state["computes_in_float32"] = bool(halves)
        return cls(type(net), state)


def _train_criteria(criteria, modules):
    """Put criteria into the mode in which skorch asks them for the loss of a training step, in place.

    What is torch's own in them stays in evaluation mode, as in the network: no dropout, no statistics of a batch.
    """
    networks = {id(m) for module in modules if isinstance(module, torch.nn.Module) for m in module.modules()}
    for criterion in criteria:
        for part in criterion.modules() if isinstance(criterion, torch.nn.Module) else ():
            if id(part) not in networks and not type(part).__module__.startswith("torch."):
                part.training = True


def _skip_hooks(module, memo):
    """Make the deep copy start with torch's own hooks only: a user's hook would write into the user's objects.

    Kept is also what says that it belongs to the module, by an attribute ``is_part_of_module``.

    ``memo`` is that of ``copy.deepcopy``, and written to.
    """
    for attribute in HOOKS:
        hooks = vars(module).get(attribute)
        if not hooks:
            continue
        keep = OrderedDict()
        if not attribute.endswith(("_with_kwargs", "_always_called")):
            # torch's own (weight_norm, spectral_norm, pruning) are part of what the module computes.
            for key, hook in hooks.items():
                own = (getattr(hook, "__module__", None) or "").split(".")[0] == "torch"
                if own or getattr(hook, "is_part_of_module", False):
                    keep[key] = hook
            if len(keep) < len(hooks) and not attribute.startswith("_backward"):
                warn(
                    f"forward hooks on {type(module).__name__} are left out of the private copy of the network; if "
                    "they change what the module computes, move that into its forward",
                )
        memo[id(hooks)] = keep


def detach_leftovers(value, memo, depth=3):
    """Let attributes kept from a training forward (``self.attention = a``) be copied: deepcopy refuses non-leaves."""
    if depth == 0:  # containers may hold themselves
        return
    if isinstance(value, torch.Tensor):
        if not value.is_leaf:
            memo[id(value)] = value.detach().clone()
    elif isinstance(value, Mapping):
        for item in value.values():
            detach_leftovers(item, memo, depth - 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            detach_leftovers(item, memo, depth - 1)
