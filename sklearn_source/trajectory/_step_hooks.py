"""Hooks on an optimizer that see every step it takes."""

from __future__ import annotations

from ._optimizer_kind import inner_optimizer
from ._stage_log import read_hyper_parameters


class StepHooks:
    """Report the hyper-parameters of every step of an optimizer, once it has been taken.

    Parameters
    ----------
    net : skorch.NeuralNet
        That is being trained.
    on_step : callable
        Called as ``on_step(optimizer, values)``, with the values of :func:`read_hyper_parameters`.
    before_step, on_gradient : callable
        Called without arguments when a step begins, and when its gradient is in the parameters.

    Attributes
    ----------
    names : dict of int to str
        Names of the module's parameters by ``id``.
    """

    def __init__(self, net, on_step, before_step, on_gradient):
        self.net, self._given, self.module = net, net.optimizer_, net.module_
        self.optimizer = optimizer = inner_optimizer(net.optimizer_)
        self.names = {id(value): name for name, value in net.module_.named_parameters()}
        self._on_step, self._on_begin, self._on_gradient = on_step, before_step, on_gradient
        self._values = None  # of a step that has begun
        self._forward_hook = None
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    def belong_to(self, net):
        """Whether these are still the optimizer and the module of a net."""
        return self._given is net.optimizer_ and self.module is net.module_

    def await_forward(self, callback):
        """Call back after every forward pass of the module, until :meth:`stop_awaiting_forward`."""
        self._forward_hook = self.module.register_forward_hook(lambda *_: callback())

    def stop_awaiting_forward(self):
        if self._forward_hook is not None:
            self._forward_hook.remove()
            self._forward_hook = None

    @property
    def awaits_forward(self):
        return self._forward_hook is not None

    def remove(self):
        """Take all hooks off."""
        for handle in self._handles:
            handle.remove()
        self.stop_awaiting_forward()

    def _before_step(self, optimizer, args, kwargs):
        # skorch hands the forward and backward pass to the step as a closure; callbacks that run in it may still change
        # a rate. So read after it, when the optimizer is about to.
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        self._values = read_hyper_parameters(optimizer)
        self._on_begin()
        if closure is None:
            self._on_gradient()
            return None

        def observed():
            loss = closure()
            self._values = read_hyper_parameters(optimizer)
            self._on_gradient()
            return loss

        if "closure" in kwargs:
            return args, {**kwargs, "closure": observed}
        return (args[0], observed, *args[2:]), kwargs

    def _after_step(self, optimizer, args, kwargs):
        # Only now has the step been taken: an interrupt in the closure leaves none behind. Where an optimizer's step
        # calls that of its base class, torch may run the hooks of both: one update, noted once.
        if self._values is not None:
            values, self._values = self._values, None
            self._on_step(optimizer, values)
