"""Per-row gradients of a network: one forward pass, then as many pulled-back cotangents as asked."""

from __future__ import annotations

import contextlib
import copy
from collections import defaultdict

import torch

from ..utils._compat_torch import tree_map
from ..utils._fastpath import mha_fastpath_off
from ._block_plan import plan_blocks
from ._blocks import ROWS, to_matrices
from ._capture import Capture
from ._functional import LayerCall, network_gradients
from ._parameter_selection import refuse_scripts, select_parameters
from ._parameter_use import Recorder
from .layers import refuse_frequencies

# Rows of the check that the quick ways agree with autograd: three, which divides few position counts.
_CHECK_ROWS = 3


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
        self._active = self._seen = None
        self._is_attached = False
        self._levels, self._observed, self._axes, self._expansions = {}, (), {}, {}
        self._plan()

    def _plan(self):
        self._set_blocks(
            plan_blocks(
                self.module, self.names, treatment=self._treatment, levels=self._levels, uses=self._observed
            )
        )  # fmt: skip

    def _set_blocks(self, blocks):
        self.blocks = blocks
        self.dense_names = [b.parameters[0] for b in blocks if b.by_network]
        self.layer_names = list(dict.fromkeys(b.module for b in blocks if b.by_layer))
        self._watched = [name for b in blocks if b.by_uses for name in b.parameters]
        # Bare parameters have their rows where they are broadcast: in the first or the second axis.
        self._broadcast = {b.parameters[0]: (0 if b.rows_first else 1,) for b in blocks if b.rule.is_broadcast}
        self._shared = {name for b in blocks if b.lacks_rows for name in b.parameters}

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

    def capture(self, x):
        """Run the network on a batch and keep what its per-row gradients need.

        Memory: the activations of the batch, inputs and output gradients of every tapped layer.
        """
        output, uses, calls, _ = self._run(x, self._watched, self._broadcast, self._shared, self._expansions)
        new = set() if self._seen is None else _used(uses, calls) - self._seen
        if new:
            raise ValueError(
                f"{sorted(new)} took no part in the rows that the gradients were checked with, but do in others: which "
                "parameters a row uses depends on the row. Put rows that use them first, or leave them out with layers="
            )
        return Capture(self, x, output, uses, calls)

    def _run(self, x, watched, *others):
        calls = defaultdict(list)
        # By identity, so anew each time: an engine may have been pickled.
        watched = {id(self.module.get_parameter(name)): name for name in watched}
        self._active = calls
        try:
            with torch.enable_grad(), mha_fastpath_off(), Recorder(watched, *others) as recorder:
                output = self._forward(x)
        finally:
            self._active = None
        return output, recorder.uses, calls, recorder.expansions

    def dense_gradients(self, x, cotangent, names=None):
        """Per-row gradients of parameters through the whole network: dict name -> (B, *shape)."""
        names = self.dense_names if names is None else names
        with self.paused(), mha_fastpath_off():  # the other parameters would keep the whole graph alive
            return network_gradients(self.module, self._forward, names, x, cotangent)

    def verify(self, x):
        """Compare the blocks with autograd on some rows, and send what disagrees another way, in the end the dense one.

        Parameters
        ----------
        x : batch
            Three rows are compared; all are looked at for parameters that only some rows use (routed experts), which go
            the dense way.

        Returns
        -------
        demoted : list of str
            Layers, or parameters of no layer, whose quick way was wrong for this network.
        """
        # Fewer rows come again: one row alone would not tell rows from positions.
        few = tree_map(
            lambda leaf: leaf[torch.arange(_CHECK_ROWS) % len(leaf)] if isinstance(leaf, torch.Tensor) else leaf, x
        )
        checked, _ = self._observe(few)
        seen, uneven = self._observe(x)
        self._seen, tried = checked | seen, set()
        self._send(
            tried, [b for b in self.blocks if not b.by_network and self._traces(b) & (seen - checked)], len(ROWS)
        )
        while True:
            wrong = self._disagreeing(few)
            quick = [block for block in wrong if not block.by_network]
            if quick:
                self._send(tried, quick, 1)
                continue
            # What looked right may have had one position of every row by chance.
            chance = [b for b in self.blocks if not b.by_network and not b.lacks_rows and self._traces(b) & uneven]
            if not chance:
                break
            self._send(tried, chance, len(ROWS))
        if wrong:
            raise ValueError(
                f"per-row gradients of {[b.name for b in wrong]} cannot be taken apart by rows: the network's "
                "output for one row seems to depend on other rows of the batch. Use layers= to leave these "
                "parameters out"
            )
        return sorted({owner for owner, name in tried if name in self.dense_names})

    def _send(self, tried, blocks, levels):
        """Send blocks so many levels on; past the last of :data:`ROWS` is the dense way."""
        tried.update((block.module, name) for block in blocks for name in block.parameters)
        for owner in {block.module for block in blocks}:
            self._levels[owner] = self._levels.get(owner, 0) + levels
        self._plan()

    def _observe(self, x):
        """Plan by what functions use the parameters on some rows.

        Returns the names of what was used, and of what saw numbers of positions that do not divide by the rows.
        """
        loose = {b.parameters[0]: (0, 1) for b in self.blocks if b.rule.is_broadcast or not b.by_uses}
        with self.attached(), _failing_clearly():
            output, self._observed, calls, _ = self._run(x, self.names, loose)
        uneven = {u.weight[0] for u in self._observed if u.weight is not None and u.n_positions_seen() % len(output)}
        for use in self._observed:  # kept for their kinds alone
            use.x = use.edge = use.like = None
        self._plan()
        return _used(self._observed, calls), uneven

    def _traces(self, block):
        """What :func:`_used` says when the block is used."""
        return {block.module} if block.by_layer else set(block.parameters)

    def _disagreeing(self, x):
        """The blocks whose gradients of some rows are not those of autograd."""
        with self.attached():
            with _failing_clearly():
                output, uses, calls, self._expansions = self._run(x, self._watched, self._broadcast, self._shared)
                capture = Capture(self, x, output, uses, calls)
            generator = torch.Generator().manual_seed(0)
            shape = capture.output.shape
            cotangent = torch.randn(shape, generator=generator, dtype=torch.float64).to(capture.output)
            try:
                gradients = capture.pull(cotangent)
            except Exception:  # a layer that no rule fits (its shapes, its arguments): let each be judged alone
                gradients = [self._pull_or_none(capture, cotangent, block) for block in self.blocks]
            wrong = []
            for row in range(min(shape[0], 2)):
                masked = torch.zeros_like(cotangent)
                masked[row] = cotangent[row]
                parameters = {n: self.module.get_parameter(n) for n in self.names}
                exact = torch.autograd.grad(
                    capture.output, list(parameters.values()), masked, retain_graph=True, allow_unused=True
                )
                exact = {
                    name: torch.zeros_like(p) if e is None else e.to_dense()
                    for (name, p), e in zip(parameters.items(), exact)
                }
                largest = max(float(e.abs().max()) for e in exact.values())
                for block, gradient in zip(self.blocks, gradients):
                    if block in wrong:
                        continue
                    target = to_matrices(block, exact)
                    if gradient is None or not _close(gradient[row : row + 1].matrix()[0], target, largest):
                        wrong.append(block)
        return wrong

    def _pull_or_none(self, capture, cotangent, block):
        """The gradient of one block alone; None where its rule fails."""
        alone = copy.copy(self)
        alone._set_blocks([block])
        try:
            return Capture(alone, capture._x, capture.output, capture._uses, capture._calls).pull(cotangent)[0]
        except Exception:
            return None


def _used(uses, calls):
    """Names of the parameters that functions used, and of the layers that were called."""
    return {name for use in uses for name in use.names} | set(calls)


@contextlib.contextmanager
def _failing_clearly():
    try:
        yield
    except RuntimeError as error:
        raise ValueError(f"the network failed on a batch of training rows: {error}") from error


def _close(value, expected, largest):
    """Up to rounding: of the block itself, or of the largest gradient, of which a vanishing one may be a difference."""
    tolerance = 1e-8 if expected.dtype == torch.float64 else 2e-3
    rounding = 40 * torch.finfo(expected.dtype).eps * largest + 1e-12
    return bool((value - expected).abs().max() <= tolerance * float(expected.abs().max()) + rounding)
