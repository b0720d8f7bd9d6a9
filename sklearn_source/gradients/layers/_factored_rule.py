"""Weights whose gradients are sums of outer products of inputs and output gradients over positions."""

from __future__ import annotations

import functools
from abc import abstractmethod
from dataclasses import dataclass

import torch

from ..algebra import Factored, Inputs
from ._parameter_rule import ParameterRule
from ._row_layout import RowLayout
from ._vector_rule import Bias


@dataclass(frozen=True)
class FactoredRule(ParameterRule):
    """Any such weight: ``G_n = sum_t g_nt a_nt^T`` with ``a`` of :meth:`inputs` and ``g`` of :meth:`outputs`."""

    form = "factored"
    has_factors = True
    bias_rule = Bias

    @abstractmethod
    def inputs(self, x, settings, layout, ones=None):
        """``a`` (B, groups, T, in) from a function's input.

        ``ones`` asks for one more column at the end, the bias's input: ones (True) or, where the use was without the
        bias, zeros (False); None for none.
        """

    @abstractmethod
    def outputs(self, use, grad, layout):
        """``g`` (B, groups, T, out) from the gradient of a function's output."""

    def overlap(self, x, settings):
        """How a convolution's windows overlap, an :class:`Overlap`, or None."""
        return None

    def row_gradient(self, pairs, bias, layout, shared):
        g = [self.outputs(use, grad, layout.of(use)) for use, grad in pairs]
        g = g[0] if len(g) == 1 else torch.cat(g, dim=2)
        if type(self) not in shared:
            uses = [use for use, _ in pairs]
            shared[type(self)] = self._inputs_of(uses, bias, layout, g.shape[:3])
        return Factored(shared[type(self)], g)

    def _inputs_of(self, uses, bias, layout, lead):
        """The inputs of all uses, laid out where rows lie second, else as the :class:`Inputs` that lay them out."""
        ones = [None if bias is None else use.bias == (bias, use.weight[1]) for use in uses]
        # A partial, not a closure: a fitted estimator keeps some gradients, and is pickled.
        layouts = [layout.of(use) for use in uses]
        lay_out = functools.partial(_laid_out, self, [use.settings for use in uses], layouts, ones)
        sources = [use.x.detach().to(use.like.dtype) for use in uses]  # autocast casts what is not of its type
        if not layout.rows_first:  # no stretch of memory is some rows': laid out at once
            return lay_out(sources, slice(0, layout.n_rows))
        whole = len(uses) == 1 and len(sources[0]) == layout.n_rows
        overlap = self.overlap(sources[0], uses[0].settings) if whole else None
        width = self.shape[2] + (bias is not None)
        return Inputs(lay_out, sources, (*lead, width), overlap=overlap)

    def zero_gradient(self, n_rows, bias, like):
        groups, out, width = self.shape
        a = like.new_zeros((n_rows, groups, 1, width + (bias is not None)))
        return Factored(a, like.new_zeros((n_rows, groups, 1, out)))


def _laid_out(rule, settings, layouts, ones, sources, rows):
    """``a`` of the rows of a slice: the inputs of all uses, one after the other along the positions."""
    n_rows = layouts[0].n_rows
    if rows.stop - rows.start < n_rows:
        sources = [_some_rows(x, n_rows, rows) for x in sources]
        layouts = [RowLayout(rows.stop - rows.start, layout.rows_first) for layout in layouts]
    a = [rule.inputs(x, of_use, layout, one) for x, of_use, layout, one in zip(sources, settings, layouts, ones)]
    return a[0] if len(a) == 1 else torch.cat(a, dim=2)


def _some_rows(x, n_rows, rows):
    """The part of an input that belongs to some rows, also where rows and positions were flattened together."""
    each = x.shape[0] // n_rows
    if each * n_rows == x.shape[0]:
        return x[rows.start * each : rows.stop * each]
    return x.reshape(n_rows, -1, x.shape[-1])[rows]
