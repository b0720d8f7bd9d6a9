"""The graph of one batch, and the per-row gradients pulled back through it."""

from __future__ import annotations

from collections import defaultdict

import torch

from ._functional import layer_gradients
from .algebra import Dense
from .layers import RowLayout


class Capture:
    """The graph of one batch: its ``output`` and, for any cotangent, the per-row gradients of every block.

    Parameters
    ----------
    engine : GradientEngine
    x : batch
    output : Tensor (B, ...)
    uses : list of ParameterUse
    calls : dict of str to list of LayerCall
        Of the layers whose gradients come from ``torch.func`` on the layer alone.
    """

    def __init__(self, engine, x, output, uses, calls):
        self._engine, self._x, self.output, self._uses, self._calls = engine, x, output, uses, calls
        self._of_weight, self._of_bias = defaultdict(list), defaultdict(list)
        for use in uses:
            if use.weight is not None:
                self._of_weight[use.weight[0]].append(use)
            if use.bias is not None:
                self._of_bias[use.bias[0]].append(use)
        self._shared = [{} for _ in engine.blocks]

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
        calls = [call for name in engine.layer_names for call in self._calls.get(name, ())]
        edges = [use.edge for use in self._uses] + [edge for call in calls for edge in call.edges]
        pulled = iter(())
        if edges:
            pulled = torch.autograd.grad(self.output, edges, cotangent, retain_graph=True, allow_unused=True)
            pulled = iter(pulled)
        grads = {use: use.per_row(next(pulled), n_rows) for use in self._uses}
        grads.update({call: call.materialized([next(pulled) for _ in call.edges]) for call in calls})
        whole = engine.dense_gradients(self._x, cotangent) if engine.dense_names else {}
        for name in engine.layer_names:
            whole.update(self._of_layer(name, grads))
        return [
            self._of_uses(block, grads, shared)
            if block.by_uses
            else Dense(whole[block.parameters[0]].reshape(n_rows, *block.shape))
            for block, shared in zip(engine.blocks, self._shared)
        ]

    def _of_uses(self, block, grads, shared):
        """The gradient of a block from its uses and ``grads``, what came back to each; ``shared`` by repeated pulls."""
        rule, n_rows = block.rule, len(self.output)
        uses = (self._of_bias if rule.of_bias else self._of_weight)[block.parameters[0]]
        pairs = [(use, grads[use]) for use in uses if rule.takes(use)]
        if not pairs:
            return rule.zero_gradient(n_rows, block.bias, self.output)
        return rule.row_gradient(pairs, block.bias, RowLayout(n_rows, block.rows_first), shared)

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
