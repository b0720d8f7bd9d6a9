"""Per-row gradients of a network: one forward pass, then as many pulled-back cotangents as asked."""

from __future__ import annotations

import contextlib
import copy
import functools
import warnings
from collections import defaultdict

import torch
from torch import nn
from torch.autograd.graph import get_gradient_edge
from torch.utils._pytree import tree_map

from ._blocks import plan_blocks, select_parameters, to_matrices
from ._rowgrad import Dense, Factored, Inputs
from ._rules import leaf_gradients

# Rows of the check that the quick ways agree with autograd: three, which divides few position counts.
_CHECK_ROWS = 3


class _Call:
    """One call of one layer: its input and the place in the graph where its output's gradient arrives.

    The edge, not the output, is kept: a later in-place operation rewrites the output but not the edge.
    """

    __slots__ = ("x", "edge", "shape")

    def __init__(self, x, output):
        self.x, self.edge, self.shape = x, get_gradient_edge(output), output


class Capture:
    """The graph of one batch: its ``output`` and, for any cotangent, the per-row gradients of every block."""

    def __init__(self, engine, x, output, calls):
        self._engine, self._x, self.output, self._calls = engine, x, output, calls
        self._inputs = {}

    def pull(self, cotangent):
        """Gradients of ``<cotangent_n, output_n>`` for every row n.

        Parameters
        ----------
        cotangent : tensor like ``output``

        Returns
        -------
        gradients : list of Factored or Dense, one per block
            Repeated pulls share the inputs ``a``.
        """
        engine = self._engine
        n_rows = self.output.shape[0]
        calls = [(name, call) for name in engine.tapped for call in self._calls.get(name, ())]
        grads = defaultdict(list)
        if calls:
            edges = [call.edge for _, call in calls]
            pulled = torch.autograd.grad(self.output, edges, cotangent, retain_graph=True, allow_unused=True)
            for (name, call), grad in zip(calls, pulled):
                if grad is None:
                    grad = call.shape.new_zeros(call.shape.shape)
                grads[name].append((call.x, grad.detach()))
        leaves = {name: self._leaf(name, grads[name], n_rows) for name in engine.leaf_parts}
        dense = engine.dense_gradients(self._x, cotangent) if engine.dense_names else {}
        result = []
        for i, block in enumerate(engine.blocks):
            if block.kind == "factored":
                result.append(self._factored(i, block, grads[block.module], n_rows))
            elif block.kind == "leaf":
                result.append(Dense(leaves[block.module][block.part].reshape(n_rows, *block.shape)))
            else:
                result.append(Dense(dense[block.parameters[0]].reshape(n_rows, *block.shape)))
        return result

    def _factored(self, i, block, pairs, n_rows):
        layer = self._engine.module.get_submodule(block.module)
        if not pairs:  # the layer took no part in this output: its gradient is zero
            zeros = self.output.new_zeros
            groups, out, width = block.shape
            return Factored(zeros((n_rows, groups, 1, width)), zeros((n_rows, groups, 1, out)))
        g = [block.rule.outputs(layer, grad, n_rows) for _, grad in pairs]
        g = g[0] if len(g) == 1 else torch.cat(g, dim=2)
        if block.part == "bias":  # every position's input is one: the sum is the gradient itself, and exact as such
            g = g.sum(2).reshape(n_rows, 1, 1, -1)  # the groups of a convolution are no groups of its bias
        if i not in self._inputs:
            self._inputs[i] = self._lay_out(block, layer, [x for x, _ in pairs], g)
        return Factored(self._inputs[i], g)

    def _lay_out(self, block, layer, sources, g):
        if block.part == "bias":
            return g.new_ones((*g.shape[:3], 1))

        # A partial, not a closure: a fitted estimator keeps some gradients, and is pickled.
        lay_out = functools.partial(_laid_out, block.rule, layer, g.shape[0], block.part == "both")
        overlap = block.rule.overlap(layer, sources[0]) if len(sources) == 1 else None
        return Inputs(lay_out, [x.detach() for x in sources], (*g.shape[:3], block.shape[2]), overlap=overlap)

    def _leaf(self, name, pairs, n_rows):
        parts = self._engine.leaf_parts[name]
        layer = self._engine.module.get_submodule(name)
        if not pairs:
            return {part: self.output.new_zeros((n_rows, *getattr(layer, part).shape)) for part in parts}
        with self._engine.paused(), torch.no_grad():
            found = [leaf_gradients(layer, parts, x, grad) for x, grad in pairs]
        return {part: sum(f[part] for f in found) for part in parts}


def _laid_out(rule, layer, n_rows, bias, sources, rows):
    """``a`` of the rows of a slice: the inputs of all calls, one after the other along the positions."""
    a = [rule.inputs(layer, _some_rows(x, n_rows, rows), rows.stop - rows.start, bias) for x in sources]
    return a[0] if len(a) == 1 else torch.cat(a, dim=2)


def _some_rows(x, n_rows, rows):
    """The part of a layer's input that belongs to some rows, also where rows and positions were flattened together."""
    each = x.shape[0] // n_rows
    if each * n_rows == x.shape[0]:
        return x[rows.start * each : rows.stop * each]
    return x.reshape(n_rows, -1, x.shape[-1])[rows]


class FunctionalForward(nn.Module):
    """The network's forward as a module of its own, so that ``functional_call`` can give it other parameters."""

    def __init__(self, module, forward):
        super().__init__()
        self.module = module
        # Not as an attribute: a forward that is itself a module would register its parameters a second time.
        object.__setattr__(self, "_forward", forward)

    def forward(self, x):
        return self._forward(x)


class GradientEngine:
    """Per-row gradients of the chosen parameters of a module, as blocks.

    ``nn.Linear`` and ``nn.ConvNd`` give factored gradients from hooks; other layers with parameters of their own go
    through ``torch.func`` layer by layer; all else through ``torch.func`` over the whole network. What a layer's hook
    cannot see (a weight used outside its layer's ``forward``, an output that mixes rows with positions) is found by
    :meth:`verify`, which compares some rows with autograd and sends the layer the dense way.

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
    """

    def __init__(self, module, forward, layers=None, treatment=None):
        self.module, self._forward = module, forward
        self.names = select_parameters(module, layers)
        self._treatment = treatment
        self._active = None
        self._plan(())

    def _plan(self, demoted):
        self._set_blocks(plan_blocks(self.module, self.names, treatment=self._treatment, demoted=demoted))

    def _set_blocks(self, blocks):
        self.blocks = blocks
        self.tapped = list(dict.fromkeys(b.module for b in self.blocks if b.kind != "dense"))
        self.leaf_parts = defaultdict(list)
        for block in self.blocks:
            if block.kind == "leaf":
                self.leaf_parts[block.module].append(block.part)
        self.dense_names = [b.parameters[0] for b in self.blocks if b.kind == "dense"]

    @property
    def n_parameters(self):
        return sum(block.size for block in self.blocks)

    @contextlib.contextmanager
    def paused(self):
        active, self._active = self._active, None
        try:
            yield
        finally:
            self._active = active

    @contextlib.contextmanager
    def attached(self):
        """Hooks on the module's layers for as long as the context lasts; every parameter's flag is put back."""
        flags = [(p, p.requires_grad) for p in self.module.parameters()]
        chosen = {id(self.module.get_parameter(name)) for name in self.names}
        # Layers below the first chosen one need no graph: parameters left out save their part of the backward.
        for parameter, _ in flags:
            parameter.requires_grad_(id(parameter) in chosen)
        handles = []
        for name in self.tapped:
            layer = self.module.get_submodule(name)
            handles.append(layer.register_forward_hook(self._make_hook(name)))
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()
            for parameter, flag in flags:
                parameter.requires_grad_(flag)

    def _make_hook(self, name):
        def hook(layer, args, output):
            if self._active is not None and isinstance(output, torch.Tensor) and output.requires_grad and args:
                self._active[name].append(_Call(args[0], output))

        return hook

    def capture(self, x):
        """Run the network on a batch and keep what its per-row gradients need.

        Memory: the activations of the batch, inputs and output gradients of every tapped layer.
        """
        calls = defaultdict(list)
        self._active = calls
        try:
            with torch.enable_grad():
                output = self._forward(x)
        finally:
            self._active = None
        return Capture(self, x, output, calls)

    def dense_gradients(self, x, cotangent, names=None):
        """Per-row gradients of parameters through the whole network: dict name -> (B, *shape)."""
        names = self.dense_names if names is None else names
        parameters = {f"module.{n}": self.module.get_parameter(n).detach() for n in names}
        wrapped = FunctionalForward(self.module, self._forward)

        def value(p, row, c):
            row = tree_map(lambda leaf: leaf.unsqueeze(0) if isinstance(leaf, torch.Tensor) else leaf, row)
            return (torch.func.functional_call(wrapped, p, (row,)).squeeze(0) * c).sum()

        with self.paused(), torch.no_grad():  # the other parameters would keep the whole graph alive
            pull = torch.func.grad(value)
            cotangent = cotangent.detach()
            try:
                # A layer without a batching rule is slower, which the user cannot mend: torch's warning is dropped.
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", message="There is a performance drop")
                    grads = torch.func.vmap(pull, in_dims=(None, 0, 0))(parameters, x, cotangent)
            except RuntimeError:
                # Some layers (recurrent ones, data-dependent branches) have no batching rule: row by row.
                rows = [pull(parameters, _row(x, n), cotangent[n]) for n in range(cotangent.shape[0])]
                grads = {name: torch.stack([row[name] for row in rows]) for name in parameters}
        return {name.removeprefix("module."): grad for name, grad in grads.items()}

    def verify(self, x):
        """Compare the blocks with autograd on some rows, and send what disagrees the dense way.

        Returns
        -------
        demoted : list of str
            Layers whose quick way was wrong for this network.
        """
        x = tree_map(lambda leaf: leaf[:_CHECK_ROWS] if isinstance(leaf, torch.Tensor) else leaf, x)
        wrong = sorted({b.module for b in self._disagreeing(x) if b.kind != "dense"})
        if wrong:
            self._plan(wrong)
            left = self._disagreeing(x)
            if left:
                raise ValueError(
                    f"per-row gradients of {[b.name for b in left]} cannot be taken apart by rows: the network's "
                    "output for one row seems to depend on other rows of the batch. Use layers= to leave these "
                    "parameters out"
                )
        return wrong

    def _disagreeing(self, x):
        with self.attached():
            try:
                capture = self.capture(x)
            except RuntimeError as error:
                raise ValueError(f"the network failed on a batch of training rows: {error}") from error
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
                exact = {n: torch.zeros_like(p) if e is None else e for (n, p), e in zip(parameters.items(), exact)}
                for block, gradient in zip(self.blocks, gradients):
                    if block in wrong:
                        continue
                    target = to_matrices(block, self.module, exact)
                    if gradient is None or not _close(gradient[row : row + 1].matrix()[0], target):
                        wrong.append(block)
        return wrong

    def _pull_or_none(self, capture, cotangent, block):
        alone = copy.copy(self)
        alone._set_blocks([block])
        try:
            return Capture(alone, capture._x, capture.output, capture._calls).pull(cotangent)[0]
        except Exception:
            return None


def _row(x, n):
    return tree_map(lambda leaf: leaf[n] if isinstance(leaf, torch.Tensor) else leaf, x)


def _close(found, expected):
    scale = float(expected.abs().max())
    tolerance = 1e-8 if expected.dtype == torch.float64 else 2e-3
    return bool((found - expected).abs().max() <= tolerance * scale + 1e-12)
