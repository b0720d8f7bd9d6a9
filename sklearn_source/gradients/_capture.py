"""The graph of one batch, and the per-row gradients pulled back through it."""

from __future__ import annotations

import copy
from collections import defaultdict

import torch

from ..utils._locks import cached_property
from ._cotangent import random_cotangent
from ._functional import layer_gradients
from .algebra import Dense, Factored
from .layers import RoutedLayout, RowLayout


class Capture:
    """The graph of one batch: its ``output`` and, for any cotangent, the per-row gradients of every block.

    Parameters
    ----------
    engine : GradientEngine
    forward : callable
        What gave the output.
    x : batch
    output : Tensor (B, ...)
    uses : list of ParameterUse
    calls : dict of str to list of LayerCall
        Of the layers whose gradients come from ``torch.func`` on the layer alone.
    """

    def __init__(self, engine, forward, x, output, uses, calls):
        self._engine, self._forward, self._x, self.output = engine, forward, x, output
        self._uses, self._calls = uses, calls
        self._of_weight, self._of_bias = defaultdict(list), defaultdict(list)
        for use in uses:
            if use.weight is not None:
                self._of_weight[use.weight[0]].append(use)
            if use.bias is not None:
                self._of_bias[use.bias[0]].append(use)
        self._shared = [{} for _ in engine.blocks]
        self._layouts = {}  # of the blocks by name: no cotangent changes them

    def of_blocks(self, blocks):
        """The same graph for some blocks alone."""
        alone = copy.copy(self._engine)
        alone.set_blocks(blocks)
        return Capture(alone, self._forward, self._x, self.output, self._uses, self._calls)

    def pull(self, cotangent):
        """Gradients of ``<cotangent_n, output_n>`` for every row n.

        Parameters
        ----------
        cotangent : tensor like ``output``

        Returns
        -------
        gradients : list of RowGradient, one per block
            Repeated pulls share the inputs ``a``.
        """
        engine, n_rows = self._engine, len(self.output)
        grads = self._arrived(cotangent)
        whole = engine.dense_gradients(self._x, cotangent, forward=self._forward) if engine.dense_names else {}
        for name in engine.layer_names:
            whole.update(self._of_layer(name, grads))
        return [
            self._of_uses(block, grads, shared)
            if block.by_uses
            else Dense(whole[block.parameters[0]].reshape(n_rows, *block.shape))
            for block, shared in zip(engine.blocks, self._shared)
        ]

    def pull_or_none(self, cotangent, block):
        """The gradient of one block alone; None where its rule fails."""
        try:
            return self.of_blocks([block]).pull(cotangent)[0]
        except Exception:
            return None

    def largest_summand(self, cotangent, block):
        """The largest sum of sizes of what a block's gradient is a sum of; zero for blocks by ``torch.func``."""
        if not block.by_uses:
            return 0.0
        grads = {use: grad.abs() for use, grad in self._arrived(cotangent).items() if use in self._uses}
        gradient = self._of_uses(block, grads, {})
        if isinstance(gradient, Factored):
            gradient = Factored(gradient.a.abs(), gradient.g.abs())
        return float(gradient.matrix().abs().max())

    def exact(self, cotangent, names):
        """Sums over the rows as training has them, by ``backward()``: dict of name to tensor.

        ``torch.autograd.grad`` does not see parameters that a function of its own hides, as reentrant checkpoints do.
        """
        module = self._engine.module
        before = [(p, p.grad) for p in module.parameters()]
        try:
            for p, _ in before:
                p.grad = None
            self.output.backward(cotangent, retain_graph=True)
            own = {name: module.get_parameter(name) for name in names}
            return {name: torch.zeros_like(p) if p.grad is None else p.grad.to_dense() for name, p in own.items()}
        finally:
            for p, grad in before:
                p.grad = grad

    def _arrived(self, cotangent):
        """What comes back to every use and to every call: dict of tensors, of calls lists of tensors."""
        n_rows = len(self.output)
        calls = [call for name in self._engine.layer_names for call in self._calls.get(name, ())]
        edges = [use.edge for use in self._uses] + [edge for call in calls for edge in call.edges]
        pulled = iter(())
        if edges:
            pulled = torch.autograd.grad(self.output, edges, cotangent, retain_graph=True, allow_unused=True)
            pulled = iter(pulled)
        grads = {use: use.per_row(next(pulled), n_rows) for use in self._uses}
        grads.update({call: call.materialized([next(pulled) for _ in call.edges]) for call in calls})
        return grads

    def _of_uses(self, block, grads, shared):
        """The gradient of a block from its uses and ``grads``, what came back to each; ``shared`` by repeated pulls."""
        rule, n_rows = block.rule, len(self.output)
        uses = (self._of_bias if rule.of_bias else self._of_weight)[block.parameters[0]]
        pairs = [(use, grads[use]) for use in uses if rule.takes(use)]
        if not pairs:
            return rule.zero_gradient(n_rows, block.bias, self.output)
        if block.name not in self._layouts:
            self._layouts[block.name] = self._layout(block, pairs)
        return rule.row_gradient(pairs, block.bias, self._layouts[block.name], shared)

    def _layout(self, block, pairs):
        """Where the rows are in what a block's layer sees."""
        n_rows = len(self.output)
        plain = RowLayout(n_rows, block.rows_first)
        if block.is_routed:
            return self._routed
        if block.lacks_rows:
            return plain
        if any(use.is_uneven(n_rows) for use, _ in pairs):
            return self._routed
        # Where other parameters are used by some rows only, these may be as well, of as many positions by chance.
        chance = self._has_routes and not all(self._routed.agrees(use, plain) for use, _ in pairs)
        return self._routed if chance else plain

    @cached_property
    def _has_routes(self):
        """The engine's; asked once, not for every block."""
        return self._engine.has_routes

    @cached_property
    def _routed(self):
        """Rows found by what comes back."""
        cotangent = random_cotangent(self.output)
        edges = [use.edge for use in self._uses]

        def pull(factors):
            factors = factors.to(cotangent).reshape(-1, *[1] * (cotangent.dim() - 1))
            grads = torch.autograd.grad(self.output, edges, cotangent * factors, retain_graph=True, allow_unused=True)
            return {use: use.per_row(grad, len(factors)) for use, grad in zip(self._uses, grads)}

        return RoutedLayout(len(self.output), pull)

    def _of_layer(self, name, grads):
        """Gradients by ``torch.func`` of a layer's calls, summed: dict of parameter name to (B, *shape)."""
        engine, n_rows = self._engine, len(self.output)
        layer = engine.module.get_submodule(name)
        parts, rows_first = engine.layer_parameters(name)
        total = {part: self.output.new_zeros((n_rows, *layer.get_parameter(part).shape)) for part in parts}
        with engine.paused():
            for number, call in enumerate(self._calls.get(name, ())):
                axes = engine.row_axes(name, number, call, n_rows, rows_first)
                for part, gradient in layer_gradients(layer, parts, call, grads[call], axes).items():
                    total[part] += gradient
        prefix = f"{name}." if name else ""
        return {prefix + part: value for part, value in total.items()}
