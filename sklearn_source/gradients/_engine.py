"""Per-row gradients of a network: one forward pass, then as many pulled-back cotangents as asked."""

from __future__ import annotations

import contextlib
from collections import defaultdict

import torch

from ..utils._fastpath import mha_fastpath_off
from ._block_plan import plan_blocks
from ._blocks import to_matrices
from ._capture import Capture
from ._cotangent import random_cotangent
from ._functional import LayerCall, network_gradients
from ._parameter_selection import refuse_scripts, select_parameters
from ._parameter_use import Recorder, names_used
from ._verification import Verification, is_close
from .layers import refuse_frequencies


class GradientEngine:
    """Per-row gradients of the chosen parameters of a module, as blocks.

    Weights that torch's functions for linear maps, convolutions, lookups and norms use, in whichever module and as
    often as they do, give their gradients from what went into these functions and what comes back; attention and
    recurrent layers are looked into, and a parameter that is broadcast over the batch is taken apart by rows. Other
    layers go through ``torch.func`` layer by layer; all else through ``torch.func`` over the whole network. What none
    of the quick ways can see (a weight used by some other function, an output that mixes rows with positions) is found
    by :meth:`verify`, which compares some rows with autograd and sends the parameters the dense way.

    Parameters
    ----------
    module : torch.nn.Module
        In evaluation mode; hooks are put on it for as long as the engine's ``attached()`` context lasts.
    forward : callable
        ``forward(x) -> output``, through ``module``.
    layers : str, list of str or None
        Which parameters: see :func:`select_parameters`.
    treatment : dict, optional
        What the optimizer did with each parameter: see :func:`plan_blocks`.

    Raises
    ------
    ValueError
        When there is nothing to attribute to, an embedding's gradients were divided by frequencies in the batch, or
        parameters are those of TorchScript.
    """

    def __init__(self, module, forward, layers=None, treatment=None):
        self.module, self._forward = module, forward
        self.names = select_parameters(module, layers)
        refuse_frequencies(module, self.names)
        refuse_scripts(module, self.names)
        self._treatment = treatment
        self._active = self.seen = None  # seen: names of what the checked rows used
        self._is_attached = False
        self.levels, self._observed, self._axes, self._expansions = {}, (), {}, {}
        self.plan()

    def plan(self, uses=None):
        """Split the parameters into blocks, by the uses of one forward pass and the ``levels`` of their owners."""
        if uses is not None:
            self._observed = uses
            for use in uses:  # kept for their kinds alone
                use.x = use.edge = use.like = None
        self.set_blocks(
            plan_blocks(
                self.module, self.names, treatment=self._treatment, levels=self.levels, uses=self._observed
            )
        )  # fmt: skip

    def set_blocks(self, blocks):
        """Let gradients be of these blocks."""
        self.blocks = blocks
        self.dense_names = [b.parameters[0] for b in blocks if b.by_network]
        self.layer_names = list(dict.fromkeys(b.module for b in blocks if b.by_layer))
        self._watched = [name for b in blocks if b.by_uses for name in b.parameters]
        # Bare parameters have their rows where they are broadcast: in the first or the second axis.
        self._broadcast = {b.parameters[0]: (0 if b.rows_first else 1,) for b in blocks if b.rule.is_broadcast}
        self._shared = {name for b in blocks if b.lacks_rows for name in b.parameters}

    @property
    def has_routes(self):
        """Whether rows have used parameters that not all rows use."""
        return any(b.is_routed and self.traces(b) & (self.seen or set()) for b in self.blocks)

    def traces(self, block):
        """What :func:`names_used` says when the block is used."""
        return {block.module} if block.by_layer else set(block.parameters)

    def layer_parameters(self, name):
        """Names, within the layer, of the parameters that ``torch.func`` finds on the layer; and if rows come first."""
        own = [b for b in self.blocks if b.by_layer and b.module == name]
        skip = len(name) + 1 if name else 0
        return [b.parameters[0][skip:] for b in own], own[0].rows_first

    def row_axes(self, name, number, call, n_rows, rows_first):
        """The rows' axis in each input and output of a layer's call, settled the first time: lengths may coincide."""
        key = (name, number, rows_first)
        if key not in self._axes:
            self._axes[key] = call.axes(n_rows, rows_first)
        return self._axes[key]

    @property
    def n_parameters(self) -> int:
        """How many numbers are attributed."""
        return sum(block.size for block in self.blocks)

    @contextlib.contextmanager
    def paused(self):
        """A context in which calls of layers are not noted."""
        active, self._active = self._active, None
        try:
            yield
        finally:
            self._active = active

    @contextlib.contextmanager
    def attached(self):
        """Hooks on the module's layers for as long as the context lasts; every parameter's flag is put back.

        Within another such context of the same engine, nothing is done.
        """
        if self._is_attached:
            yield self
            return
        flags = [(p, p.requires_grad) for p in self.module.parameters()]
        chosen = {id(self.module.get_parameter(name)) for name in self.names}
        # Layers below the first chosen one need no graph: parameters left out save their part of the backward.
        for parameter, _ in flags:
            parameter.requires_grad_(id(parameter) in chosen)
        handles = []
        for name in self.layer_names:
            layer = self.module.get_submodule(name)
            handles.append(layer.register_forward_hook(self._make_hook(name), with_kwargs=True))
        self._is_attached = True
        try:
            yield self
        finally:
            self._is_attached = False
            for handle in handles:
                handle.remove()
            for parameter, flag in flags:
                parameter.requires_grad_(flag)

    def _make_hook(self, name):
        def hook(layer, args, kwargs, output):
            if self._active is None:
                return None
            call = LayerCall(args, kwargs, output)
            if call.outputs:
                self._active[name].append(call)
            return call.output

        return hook

    def capture(self, x, forward=None):
        """Run the network on a batch and keep what its per-row gradients need.

        ``forward`` takes the place of the engine's own, through the same module.

        Memory: the activations of the batch, inputs and output gradients of every tapped layer.
        """
        forward = forward or self._forward
        output, uses, calls, _ = self._run(forward, x, self._watched, self._broadcast, self._shared, self._expansions)
        capture = Capture(self, forward, x, output, uses, calls)
        if self.seen is not None:
            self._admit(capture, names_used(uses, calls) - self.seen)
        return capture

    def first_capture(self, x):
        """:meth:`capture` of the rows that tell how parameters are expanded."""
        output, uses, calls, self._expansions = self._run(
            self._forward, x, self._watched, self._broadcast, self._shared
        )
        return Capture(self, self._forward, x, output, uses, calls)

    def run_loosely(self, x):
        """Output, uses of all parameters and calls of layers on some rows, wherever parameters may have rows."""
        loose = dict.fromkeys(self.names, (0, 1))
        with self.attached():
            return self._run(self._forward, x, self.names, loose)[:3]

    def _admit(self, capture, new):
        """Let parameters that no row used before take part, where the sum of their gradients is that of autograd."""
        if not new:
            return
        cotangent = random_cotangent(capture.output)
        for block in self.blocks:
            if not self.traces(block) & new:
                continue
            gradient = capture.pull_or_none(cotangent, block) if block.is_routed else None
            total = None if gradient is None else gradient.matrix().sum(0)
            target = to_matrices(block, capture.exact(cotangent, block.parameters))
            if total is None or not is_close(total, target, float(target.abs().max())):
                raise ValueError(
                    f"{sorted(new)} took no part in the rows that the gradients were checked with, but do in others: "
                    "which parameters a row uses depends on the row. Put rows that use them first, or leave them out "
                    "with layers="
                )
        self.seen = self.seen | new

    def _run(self, forward, x, watched, *others):
        calls = defaultdict(list)
        # By identity, so anew each time: an engine may have been pickled.
        watched = {id(self.module.get_parameter(name)): name for name in watched}
        self._active = calls
        try:
            with torch.enable_grad(), mha_fastpath_off(), Recorder(watched, *others) as recorder:
                output = forward(x)
        finally:
            self._active = None
        return output, recorder.uses, calls, recorder.expansions

    def dense_gradients(self, x, cotangent, names=None, forward=None):
        """Per-row gradients of parameters through the whole network: dict name -> (B, *shape)."""
        names = self.dense_names if names is None else names
        with self.paused(), mha_fastpath_off():  # the other parameters would keep the whole graph alive
            return network_gradients(self.module, forward or self._forward, names, x, cotangent)

    def verify(self, x):
        """Compare the blocks with autograd on some rows, and send what disagrees another way, in the end the dense one.

        Warns of what goes the dense way.

        Parameters
        ----------
        x : batch
            Three rows are compared; all are looked at for parameters that only some rows use, as experts have them,
            and compared where there are some.

        Returns
        -------
        demoted : list of str
            Layers, or parameters of no layer, whose quick way was wrong for this network.

        Raises
        ------
        ValueError
            When gradients cannot be taken apart by rows, or the network fails on these.
        """
        return Verification(self, x)()
