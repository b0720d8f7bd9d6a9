"""The graph of one batch, and the per-row gradients pulled back through it."""

from __future__ import annotations

import functools

import torch

from ._functional import layer_gradients
from .algebra import Dense, Factored, Indexed, Inputs
from .layers import EmbeddingRule, VectorRule


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
                result.append(self._quick(i, block, grads))
        return result

    def _quick(self, i, block, grads):
        n_rows, rule, rows_first = len(self.output), block.rule, block.rows != "second"
        if block.kind == "mixed":
            forms = [(part, self._form((i, part.op), part, block, grads)) for part in rule.rules]
            return Dense(sum(part.from_matrix(f.matrix()) for part, f in forms).reshape(n_rows, *block.shape))
        if not isinstance(rule, VectorRule):
            return self._form(i, rule, block, grads)
        found = [rule.gradient(use, grad, n_rows, rows_first) for use, grad in self._pairs(rule, block, grads)]
        total = sum(found) if found else self.output.new_zeros((n_rows, *rule.weight))
        if block.kind == "affine":
            return Dense(total.reshape(n_rows, *block.shape))
        # Every position's input is one: the sum is the gradient itself, and exact as such.
        if i not in self._shared:
            self._shared[i] = total.new_ones((n_rows, 1, 1, 1))
        return Factored(self._shared[i], total.reshape(n_rows, 1, 1, -1))

    def _pairs(self, rule, block, grads):
        """The uses that the block's gradient is the sum of, as far as the rule goes, and what came back to each."""
        part = "bias" if rule.op == "bias" else "weight"
        own = [use for use in self._uses if getattr(use, part) is not None and rule.op in ("bias", use.op)]
        return [(use, grads[use]) for use in own if getattr(use, part)[0] == block.parameters[0]]

    def _form(self, key, rule, block, grads):
        """A Factored or an Indexed; ``key`` is of the inputs that repeated pulls share."""
        n_rows, rows_first, zeros = len(self.output), block.rows != "second", self.output.new_zeros
        pairs = self._pairs(rule, block, grads)
        indexed = isinstance(rule, EmbeddingRule)
        joined = len(block.parameters) == 2
        groups, out, width = rule.shape
        if not pairs:  # the layer took no part in this output: its gradient is zero
            if indexed:
                return Indexed(zeros((n_rows, 1), dtype=torch.long), zeros((n_rows, 1, out)), width)
            return Factored(zeros((n_rows, groups, 1, width + joined)), zeros((n_rows, groups, 1, out)))
        g = [rule.outputs(use, grad, n_rows, rows_first) for use, grad in pairs]
        g = g[0] if len(g) == 1 else torch.cat(g, dim=-2)
        uses = [use for use, _ in pairs]
        if indexed:
            if key not in self._shared:
                self._shared[key] = torch.cat([rule.tokens(use, n_rows, rows_first) for use in uses], dim=1)
            return Indexed(self._shared[key], g, width)
        if key not in self._shared:
            ones = [use.bias == (block.parameters[1], use.weight[1]) if joined else None for use in uses]
            # A partial, not a closure: a fitted estimator keeps some gradients, and is pickled.
            lay_out = functools.partial(_laid_out, rule, [use.settings for use in uses], n_rows, rows_first, ones)
            sources = [use.x.detach() for use in uses]
            if rows_first:
                whole = len(uses) == 1 and len(sources[0]) == n_rows
                overlap = rule.overlap(sources[0], uses[0].settings) if whole else None
                self._shared[key] = Inputs(lay_out, sources, (*g.shape[:3], width + joined), overlap=overlap)
            else:  # no stretch of memory is some rows': laid out at once
                self._shared[key] = lay_out(sources, slice(0, n_rows))
        return Factored(self._shared[key], g)

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


def _laid_out(rule, settings, n_rows, rows_first, ones, sources, rows):
    """``a`` of the rows of a slice: the inputs of all uses, one after the other along the positions."""
    if rows.stop - rows.start < n_rows:
        sources = [_some_rows(x, n_rows, rows) for x in sources]
        n_rows = rows.stop - rows.start
    a = [rule.inputs(x, told, n_rows, rows_first, one) for x, told, one in zip(sources, settings, ones)]
    return a[0] if len(a) == 1 else torch.cat(a, dim=2)


def _some_rows(x, n_rows, rows):
    """The part of an input that belongs to some rows, also where rows and positions were flattened together."""
    each = x.shape[0] // n_rows
    if each * n_rows == x.shape[0]:
        return x[rows.start * each : rows.stop * each]
    return x.reshape(n_rows, -1, x.shape[-1])[rows]
