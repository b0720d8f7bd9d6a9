"""A net with another module: the same weights in a changed network, or low-rank changes trained on top of it."""

from __future__ import annotations

import copy
from collections import OrderedDict

import torch
from skorch.callbacks import Callback

from ..utils._compat_torch import HOOKS
from ._pickling import net_from_state
from ._private_module import skip_compilation
from ._private_net import detach_leftovers
from ._training import add_callback, seeded_clone, suited
from ._whole_training import train_to_the_end


def net_with_changed_module(net, change):
    """A net like another, whose module is a copy that was changed and shares the parameters and buffers.

    Parameters
    ----------
    net : skorch.NeuralNet
        Trained, with one module. Not modified, nor is its module.
    change : callable
        Takes the copied module and changes it in place; names of parameters and buffers must stay.

    Returns
    -------
    net : skorch.NeuralNet
        It shares everything else with the given one; not to be trained.
    """
    module = net.module_
    memo = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    for part in module.modules():
        for attribute in HOOKS:  # the user's own objects are not to be copied, but the list of them is
            hooks = vars(part).get(attribute)
            if hooks:
                memo[id(hooks)] = OrderedDict(hooks)
        detach_leftovers(vars(part), memo)
    skip_compilation(list(module.modules()), memo)
    changed = copy.deepcopy(module, memo)
    change(changed)
    return net_from_state(type(net), {**vars(net), "module_": changed})


def replace_tensors(module, tensors):
    """Give a module other parameters and buffers, in place.

    Parameters
    ----------
    module : Module
    tensors : mapping of str to Tensor
        By the names of ``named_parameters`` and ``named_buffers``, parameters as ``nn.Parameter``; all of them. One
        tensor may have several names in the module: each gets the same.
    """
    new = {id(old): tensors[name] for name, old in (*module.named_parameters(), *module.named_buffers())}
    for part in list(module.modules()):
        every = {"recurse": False, "remove_duplicate": False}
        for name, old in [*part.named_parameters(**every), *part.named_buffers(**every)]:
            setattr(part, name, new[id(old)])


def renew_parameters(modules):
    """Put other parameters of the same values in the place of those of modules, which may share some.

    A parameter of torch has a lock of its own. In a fork, one that a thread of the parent held stays locked for ever.
    """
    new = {id(p): torch.nn.Parameter(p.data, p.requires_grad) for module in modules for p in module.parameters()}
    for module in modules:
        named = (*module.named_parameters(), *module.named_buffers())
        replace_tensors(module, {name: new.get(id(tensor), tensor) for name, tensor in named})


class _Given:
    """Makes the module that it was given, whatever the arguments of the net's own module were."""

    def __init__(self, module):
        self.module = module

    def __call__(self, **arguments):
        return self.module


class _StopAfter(Callback):
    """Ends a training after some batches, in the middle of an epoch too."""

    def __init__(self, n_batches):
        self.n_batches = n_batches

    def on_train_begin(self, net, **kwargs):
        self.left_ = self.n_batches

    def on_batch_end(self, net, training=False, **kwargs):
        self.left_ -= bool(training)
        if self.left_ <= 0:
            raise KeyboardInterrupt  # how a skorch training ends before its time


def train_module(net, make_module, X, y, *, seed, n_steps, recorder, optimizer=None, lr=None, fit=None):
    """Train another module in the place of a net's own: with its loss, its batches, and no callbacks of its own.

    Global random states are put back as they were.

    Parameters
    ----------
    net : skorch.NeuralNet
        Not modified.
    make_module : callable
        Gives the module; what it draws comes from the seeded generators.
    X, y : what ``net.fit`` takes
    seed : int
    n_steps : int
        Batches after which the training ends.
    recorder : skorch.callbacks.Callback
    optimizer : type, optional
        None: the net's, with its options.
    lr : float, optional
        None: the net's.
    fit : callable, optional
        ``fit(net, X, y)`` trains the initialized net in the place of ``net.partial_fit(X, y)``.

    Returns
    -------
    net : skorch.NeuralNet
        The trained one.
    X, y
        As it was trained on them.

    Raises
    ------
    ValueError
        When the net makes its module in a way of its own.
    """
    with seeded_clone(net, seed) as fresh:
        module = make_module()
        settings = vars(fresh)
        settings.update(module=_Given(module), max_epochs=n_steps, verbose=0, callbacks=None, warm_start=False)
        if "compile" in settings:
            settings["compile"] = False
        if optimizer is not None:
            for name in [name for name in settings if name.startswith("optimizer__")]:
                del settings[name]
            settings["optimizer"] = optimizer
        if lr is not None:
            settings.pop("optimizer__lr", None)
            settings["lr"] = lr
        settings.pop("optimizer__param_groups", None)  # patterns of names that this module has not
        X, y = suited(copy.copy(fresh), X, y)
        add_callback(fresh, "trajectory_recorder", recorder)
        add_callback(fresh, "stop_after", _StopAfter(n_steps))
        fresh.initialize()
        if fresh.module_ is not module:
            raise ValueError(
                f"expected a net that makes its module from its parameter module, got a {type(net).__name__} that "
                "makes it in a way of its own (initialize_module), so that none can be trained in its place"
            )
        if fit is None:
            train_to_the_end(fresh.partial_fit, X, y)
        else:
            fit(fresh, X, y)
    return fresh, X, y
