"""The graph of one batch, and the per-row gradients pulled back through it."""

from __future__ import annotations

import functools

import torch

from ._indexed import Indexed
from ._rowgrad import Dense, Factored, Inputs
from ._rules import VectorRule
from ._slow import layer_gradients


class Capture:
    """The graph of one batch: its ``output`` and, for any cotangent, the per-row gradients of every block.

    Parameters
    ----------
    engine : GradientEngine
    x : batch
    output : Tensor (B, ...)
    uses : list of Use
    calls : dict of str to list of LayerCall
        Of the layers whose gradients come from ``torch.func`` on the layer alone.
    """

    def __init__(self, engine, x, output, uses, calls):
        self._engine, self._x, self.output, self._uses, self._calls = engine, x, output, uses, calls
        self._shared = {}

    def pull(self, cotangent):
        """Gradients of ``<cotangent_n, output_n>`` for every row n.

        Parameters
        ----------
        cotangent : tensor like ``output``

        Returns
        -------
        gradients : list of Factored, Indexed or Dense, one per block
            Repeated pulls share the inputs ``a``.
        """
        engine, n_rows = self._engine, len(self.output)
        calls = [call for name in engine.leaf_names for call in self._calls.get(name, ())]
        edges = [use.edge for use in self._uses] + [edge for call in calls for edge in call.edges]
        pulled = iter(())
        if edges:
            pulled = torch.autograd.grad(self.output, edges, cotangent, retain_graph=True, allow_unused=True)
            pulled = iter(pulled)
        grads = {use: use.rows_of(next(pulled), n_rows) for use in self._uses}
        grads.update({call: call.materialized([next(pulled) for _ in call.edges]) for call in calls})
        leaves = {name: self._layer(name, grads) for name in engine.leaf_names}
        dense = engine.dense_gradients(self._x, cotangent) if engine.dense_names else {}
        result = []
        for i, block in enumerate(engine.blocks):
            if block.kind in ("leaf", "dense"):
                found = (leaves[block.module] if block.kind == "leaf" else dense)[block.parameters[0]]
                result.append(Dense(found.reshape(n_rows, *block.shape)))
            else:
                pairs = [(use, grads[use]) for use in self._uses if _uses_block(use, block)]
                result.append(self._quick(i, block, pairs))
        return result

    def _quick(self, i, block, pairs):
        n_rows, rule, rows_first = len(self.output), block.rule, block.rows != "second"
        zeros = self.output.new_zeros
        if isinstance(rule, VectorRule):
            found = [rule.gradient(use, grad, n_rows, rows_first) for use, grad in pairs]
            total = sum(found) if found else zeros((n_rows, *rule.weight))
            if block.kind == "affine":
                return Dense(total.reshape(n_rows, *block.shape))
            # Every position's input is one: the sum is the gradient itself, and exact as such.
            if i not in self._shared:
                self._shared[i] = total.new_ones((n_rows, 1, 1, 1))
            return Factored(self._shared[i], total.reshape(n_rows, 1, 1, -1))
        groups, out, width = block.shape
        if not pairs:  # the layer took no part in this output: its gradient is zero
            if block.kind == "indexed":
                return Indexed(zeros((n_rows, 1), dtype=torch.long), zeros((n_rows, 1, out)), width)
            return Factored(zeros((n_rows, groups, 1, width)), zeros((n_rows, groups, 1, out)))
        g = [rule.outputs(use, grad, n_rows, rows_first) for use, grad in pairs]
        g = g[0] if len(g) == 1 else torch.cat(g, dim=-2)
        if i not in self._shared:
            self._shared[i] = self._inputs(block, [use for use, _ in pairs], n_rows, g)
        if block.kind == "indexed":
            return Indexed(self._shared[i], g, width)
        return Factored(self._shared[i], g)

    def _inputs(self, block, uses, n_rows, g):
        rule, rows_first = block.rule, block.rows != "second"
        if block.kind == "indexed":
            return torch.cat([rule.tokens(use, n_rows, rows_first) for use in uses], dim=1)
        ones = [None] * len(uses)
        if len(block.parameters) == 2:
            ones = [use.bias == (block.parameters[1], use.weight[1]) for use in uses]
        # A partial, not a closure: a fitted estimator keeps some gradients, and is pickled.
        settings = [use.settings for use in uses]
        lay_out = functools.partial(_laid_out, rule, settings, n_rows, rows_first, ones)
        return Inputs(lay_out, [use.x.detach() for use in uses], (*g.shape[:3], block.shape[2]))

    def _layer(self, name, grads):
        engine, n_rows = self._engine, len(self.output)
        layer = engine.module.get_submodule(name)
        parts, rows_first = engine.leaf_parts(name)
        total = {part: self.output.new_zeros((n_rows, *layer.get_parameter(part).shape)) for part in parts}
        with engine.paused():
            for number, call in enumerate(self._calls.get(name, ())):
                axes = engine.row_axes(name, number, call, n_rows, rows_first)
                for part, found in layer_gradients(layer, parts, call, grads[call], axes).items():
                    total[part] += found
        prefix = f"{name}." if name else ""
        return {prefix + part: value for part, value in total.items()}


def _uses_block(use, block):
    """Whether this use is one of those that the block's gradient is the sum of."""
    if block.rule.op == "bias":
        return use.bias is not None and use.bias[0] == block.parameters[0]
    return use.op == block.rule.op and use.weight is not None and use.weight[0] == block.parameters[0]


def _laid_out(rule, settings, n_rows, rows_first, ones, sources):
    a = [rule.inputs(x, told, n_rows, rows_first, one) for x, told, one in zip(sources, settings, ones)]
    return a[0] if len(a) == 1 else torch.cat(a, dim=2)
