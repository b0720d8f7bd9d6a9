"""Per-row gradients by ``torch.func``: of one layer alone, or through the whole network."""

from __future__ import annotations

import torch
from torch import nn
from torch.autograd.graph import get_gradient_edge

from ..utils._compat_torch import is_plain, quiet_vmap, tree_flatten, tree_map, tree_unflatten
from ..utils._config import bytes_for


class FunctionalForward(nn.Module):
    """The network's forward as a module of its own, so that ``functional_call`` can give it other parameters."""

    def __init__(self, module, forward):
        super().__init__()
        self.module = module
        # Not as an attribute: a forward that is itself a module would register its parameters a second time.
        object.__setattr__(self, "_forward", forward)

    def forward(self, x):
        return self._forward(x)


def network_gradients(module, forward, names, x, cotangent):
    """Per-row gradients of parameters through the whole network: dict name -> (B, *shape)."""
    parameters = {f"module.{n}": module.get_parameter(n).detach() for n in names}
    wrapped = FunctionalForward(module, forward)

    def value(p, row, c):
        return (torch.func.functional_call(wrapped, p, (row,)).squeeze(0) * c).sum()

    leaves, spec = tree_flatten(x)
    axes = [0 if isinstance(leaf, torch.Tensor) else None for leaf in leaves]
    grads = _row_by_row(value, parameters, leaves, spec, axes, cotangent.detach())
    return {name.removeprefix("module."): grad for name, grad in grads.items()}


class LayerCall:
    """One call of one layer: what went in, and where the gradients of its outputs arrive.

    ``output`` takes the place of the layer's own.
    """

    def __init__(self, args, kwargs, output):
        self.inputs, self.spec = tree_flatten((args, kwargs))
        flat, spec = tree_flatten(output)
        self.outputs = [i for i, t in enumerate(flat) if is_plain(t) and t.requires_grad]
        if len(self.outputs) > 1:
            # One output may be computed from another, whose gradient would then arrive at both: they are parted here.
            flat = [t.clone() if i in self.outputs else t for i, t in enumerate(flat)]
            output = tree_unflatten(flat, spec)
        self.output = output
        self.edges = [get_gradient_edge(flat[i]) for i in self.outputs]
        self.shapes = [flat[i].shape for i in self.outputs]
        self.like = flat[self.outputs[0]].new_empty(0) if self.outputs else None

    def materialized(self, grads):
        """What arrived at the edges, zeros where nothing did (None): list of tensors."""
        return [self.like.new_zeros(s) if g is None else g.detach() for g, s in zip(grads, self.shapes)]

    def axes(self, n_rows, rows_first):
        """The axis of the rows in every input and output; None where there seems to be none."""
        order = (0, 1) if rows_first else (1, 0)
        shapes = [leaf.shape if isinstance(leaf, torch.Tensor) else () for leaf in self.inputs]
        return tuple(
            [next((a for a in order if a < len(s) and s[a] == n_rows), None) for s in group]
            for group in (shapes, self.shapes)
        )


def layer_gradients(layer, names, call, grads, axes):
    """Per-row gradients of a layer's own parameters from one call of it: dict name -> (B, *shape).

    It suits every layer that maps row ``n`` of its inputs to row ``n`` of its outputs and costs one small backward of
    that layer.

    Parameters
    ----------
    layer : torch.nn.Module
    names : list of str
        Within the layer; those of its parametrisations have dots.
    call : LayerCall
    grads : list of tensor
        Of the outputs.
    axes : pair of lists
        As :meth:`LayerCall.axes` found them.
    """
    in_axes, out_axes = axes
    if None in out_axes:
        raise ValueError("an output of the layer has no axis of rows")
    parameters = {name: layer.get_parameter(name).detach() for name in names}

    def value(p, row, cotangents):
        args, kwargs = row
        output = tree_flatten(torch.func.functional_call(layer, p, args, kwargs))[0]
        outputs = [output[i].squeeze(axis) for i, axis in zip(call.outputs, out_axes)]
        return sum((o * c).sum() for o, c in zip(outputs, cotangents))

    leaves = [leaf.detach() if isinstance(leaf, torch.Tensor) else leaf for leaf in call.inputs]
    moved = tuple(g.movedim(axis, 0) for g, axis in zip(grads, out_axes))
    return _row_by_row(value, parameters, leaves, call.spec, in_axes, moved)


def _row_by_row(value, parameters, leaves, spec, axes, cotangents):
    """``grad value(parameters, row, cotangent)`` for every row: dict name -> (B, *shape).

    ``leaves`` with an axis are cut into rows, each of which keeps an axis of length one there.
    """
    batched = [i for i, axis in enumerate(axes) if axis is not None]
    inputs = [leaves[i].movedim(axes[i], 0) for i in batched]

    def of_row(p, parts, cotangent):
        values = list(leaves)
        for i, part in zip(batched, parts):
            values[i] = part.unsqueeze(axes[i])
        return value(p, tree_unflatten(values, spec), cotangent)

    n_rows = len(cotangents[0]) if isinstance(cotangents, tuple) else len(cotangents)
    size = sum(p.numel() * p.element_size() for p in parameters.values())
    chunk = max(1, bytes_for("functional_gradients") // max(size, 1))
    try:
        with torch.no_grad():
            pull = quiet_vmap(
                torch.func.grad(of_row), in_dims=(None, 0, 0), chunk_size=chunk if chunk < n_rows else None
            )
            return pull(parameters, inputs, cotangents)
    except RuntimeError:
        # Some layers (packed sequences, data-dependent branches) have no batching rule: one row after another.
        rows = []
        for n in range(n_rows):
            own = {name: p.detach().requires_grad_() for name, p in parameters.items()}
            with torch.enable_grad():
                total = of_row(own, [t[n] for t in inputs], tree_map(lambda c, n=n: c[n], cotangents))
            rows.append(torch.autograd.grad(total, list(own.values()), materialize_grads=True))
        stacked = [torch.stack([g.to_dense() for g in grads]) for grads in zip(*rows)]
        return dict(zip(parameters, stacked))
