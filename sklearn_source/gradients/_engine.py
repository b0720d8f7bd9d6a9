"""Per-row gradients of a network: one forward pass, then as many pulled-back cotangents as asked."""

from __future__ import annotations

import contextlib
from collections import defaultdict

import torch

from ..utils._compat_torch import tree_leaves, tree_map
from ..utils._fastpath import mha_fastpath_off
from ..utils._warnings import warn
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

    @property
    def has_routes(self):
        """Whether rows have used parameters that not all rows use."""
        return any(b.is_routed and self._traces(b) & (self._seen or set()) for b in self.blocks)

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
        if self._seen is not None:
            self._admit(capture, _used(uses, calls) - self._seen)
        return capture

    def _admit(self, capture, new):
        """Let parameters that no row used before take part, where the sum of their gradients is that of autograd."""
        if not new:
            return
        blocks = [block for block in self.blocks if self._traces(block) & new]
        cotangent = _made_up(capture.output)
        for block in blocks:
            gradient = self._pull_or_none(capture, cotangent, block) if block.is_routed else None
            exact = self._exact(capture.output, cotangent, block.parameters)
            target, total = to_matrices(block, exact), None if gradient is None else gradient.matrix().sum(0)
            if total is None or not _close(total, target, float(target.abs().max())):
                raise ValueError(
                    f"{sorted(new)} took no part in the rows that the gradients were checked with, but do in others: "
                    "which parameters a row uses depends on the row. Put rows that use them first, or leave them out "
                    "with layers="
                )
        self._seen = self._seen | new

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
        n_rows = max(len(leaf) for leaf in tree_leaves(x) if isinstance(leaf, torch.Tensor) and leaf.ndim)
        others = tree_map(lambda leaf: leaf[1:] if isinstance(leaf, torch.Tensor) and leaf.ndim else leaf, x)
        observed = [self._observe(rows) for rows in ([few, others, x] if n_rows > 1 else [few, x])]
        checked, seen = observed[0].keys(), set().union(*observed)
        self._seen, tried = seen, set()
        # As many positions of every row, whichever rows: else which rows it sees depends on the rows.
        routed = {name for name in seen if any(o.get(name) != observed[0].get(name) for o in observed)}
        routed |= {name for name in seen if any(n % 1 or not n for n in observed[0].get(name, ()))}
        self._send(tried, [b for b in self.blocks if b.by_layer and self._traces(b) & (seen - checked)], len(ROWS))
        # What no row has used yet may be of that kind.
        self._route(tried, [b for b in self.blocks if self._traces(b) & routed or not self._traces(b) & checked])
        while True:
            wrong = self._disagreeing(few, range(2))
            if not wrong and seen - checked:
                wrong = self._disagreeing(x, range(n_rows))
            quick = [block for block in wrong if not block.by_network]
            if not quick:
                break
            self._send(tried, quick, 1)
        if wrong:
            raise ValueError(
                f"per-row gradients of {[b.name for b in wrong]} cannot be taken apart by rows: the network's "
                "output for one row seems to depend on other rows of the batch. Use layers= to leave these "
                "parameters out"
            )
        slow = [name for block in self.blocks if block.by_network for name in block.parameters]
        if slow:
            shown = ", ".join(slow[:6]) + (f" and {len(slow) - 6} more" if len(slow) > 6 else "")
            warn(
                f"no quick way of per-row gradients fits how the network uses {shown}: they go through the whole "
                "network row by row, which may take many times longer. Leave them out with layers= if it does"
            )
        return sorted({owner for owner, name in tried if name in self.dense_names})

    def _route(self, tried, blocks):
        """Look for the rows of blocks wherever they were sent; returns whether there are any to look for."""
        blocks = [block for block in blocks if block.by_uses and not block.rule.is_broadcast]
        for block in blocks:
            self._send(tried, [block], ROWS.index("routed") - self._levels.get(block.module, 0))
        return bool(blocks)

    def _send(self, tried, blocks, levels):
        """Send blocks so many levels on; past the last of :data:`ROWS` is the dense way."""
        tried.update((block.module, name) for block in blocks for name in block.parameters)
        for owner in {block.module for block in blocks}:
            self._levels[owner] = self._levels.get(owner, 0) + levels
        self._plan()

    def _observe(self, x):
        """Plan by what functions use the parameters on some rows.

        Returns, by the names of what was used, how many positions per row each use saw.
        """
        loose = {b.parameters[0]: (0, 1) for b in self.blocks if b.rule.is_broadcast or not b.by_uses}
        with self.attached(), _failing_clearly():
            output, self._observed, calls, _ = self._run(self._forward, x, self.names, loose)
        if not output.requires_grad:
            raise ValueError(
                f"the network's output depends on none of {self.names[:6]}: its forward detaches them, or runs them "
                "under no_grad. Choose other parameters with layers="
            )
        seen, members = {name: [] for name in calls}, defaultdict(set)
        for use in self._observed:
            for name in use.names:
                seen.setdefault(name, []).append(use.n_positions_seen() / len(output))
            if use.is_of_member:
                members[use.weight[0]].add(use.weight[1])
            use.x = use.edge = use.like = None  # kept for their kinds alone
        for name, used in members.items():
            if len(used) < len(self.module.get_parameter(name)):
                seen[name].append(0)  # some matrix of the stack saw nothing
        self._plan()
        return seen

    def _traces(self, block):
        """What :func:`_used` says when the block is used."""
        return {block.module} if block.by_layer else set(block.parameters)

    def _disagreeing(self, x, rows):
        """The blocks whose gradients of some ``rows`` of ``x`` are not those of autograd."""
        with self.attached():
            with _failing_clearly():
                output, uses, calls, self._expansions = self._run(
                    self._forward, x, self._watched, self._broadcast, self._shared
                )
                capture = Capture(self, self._forward, x, output, uses, calls)
            cotangent = _made_up(output)
            try:
                gradients = capture.pull(cotangent)
            except Exception:  # a layer that no rule fits (its shapes, its arguments): let each be judged alone
                gradients = [self._pull_or_none(capture, cotangent, block) for block in self.blocks]
            wrong = []
            for row in rows:
                masked = torch.zeros_like(cotangent)
                masked[row] = cotangent[row]
                exact = self._exact(output, masked, self.names)
                largest = max(float(e.abs().max()) for e in exact.values())
                for block, gradient in zip(self.blocks, gradients):
                    if block in wrong:
                        continue
                    target = to_matrices(block, exact)
                    own = None if gradient is None else gradient[row : row + 1].matrix()[0]
                    if own is None or not (
                        _close(own, target, largest) or _close(own, target, self._summands(capture, masked, block))
                    ):
                        wrong.append(block)
        return wrong

    def _summands(self, capture, cotangent, block):
        """How large the numbers are that a block's gradient is a sum of: where they cancel, it is their rounding."""
        return capture.of_blocks([block]).largest_summands(cotangent)[0]

    def _exact(self, output, cotangent, names):
        """Gradients of ``<cotangent, output>`` as training has them, by ``backward()``: dict of name to tensor.

        ``torch.autograd.grad`` does not see parameters that a function of its own hides, as reentrant checkpoints do.
        """
        before = [(p, p.grad) for p in self.module.parameters()]
        try:
            for p, _ in before:
                p.grad = None
            output.backward(cotangent, retain_graph=True)
            own = {name: self.module.get_parameter(name) for name in names}
            return {name: torch.zeros_like(p) if p.grad is None else p.grad.to_dense() for name, p in own.items()}
        finally:
            for p, grad in before:
                p.grad = grad

    def _pull_or_none(self, capture, cotangent, block):
        """The gradient of one block alone; None where its rule fails."""
        try:
            return capture.of_blocks([block]).pull(cotangent)[0]
        except Exception:
            return None


def _used(uses, calls):
    """Names of the parameters that functions used, and of the layers that were called."""
    return {name for use in uses for name in use.names} | set(calls)


def _made_up(output):
    """A random cotangent of an output."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output)


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
