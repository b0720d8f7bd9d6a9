"""Where a parameter is used in a forward pass: seen as torch's functions are called, whichever module calls them."""

from __future__ import annotations

import types

import torch
import torch.nn.functional as F
from torch.autograd.graph import get_gradient_edge
from torch.overrides import TorchFunctionMode

from ..utils._compat_torch import view_base
from ._broadcasting import ELEMENTWISE, EXPANSIONS, IN_PLACE, spread_of
from .layers import READERS, unrolled


class Use:
    """One use of parameters by one function: what went in, and where the gradient of what came out arrives.

    Attributes
    ----------
    op : str
        ``"linear"``, ``"matmul"``, ``"conv"``, ``"conv_transpose"``, ``"embedding"``,
        ``"embedding_transposed"``, ``"norm"``, or ``"broadcast"`` for an elementwise operation.
    x : Tensor
        The function's input; of an embedding the indices, of a norm the normalised input.
    weight, bias : (str, int) or None
        Name of the parameter and the line at which the used part of it starts.
    settings : tuple
        What else the function was told.
    edge : torch.autograd.graph.GradientEdge
        The edge, not the output, is kept: a later in-place operation rewrites the output but not the edge.
    spread : Spread or None
        How the output, or the parameter itself, met the rows where it has none of its own.
    """

    __slots__ = ("op", "x", "weight", "bias", "settings", "edge", "like", "shape", "spread")

    def __init__(self, op, x, weight, bias, settings, output, spread=None):
        self.op, self.x, self.weight, self.bias, self.settings = op, x, weight, bias, settings
        self.edge, self.like, self.shape = get_gradient_edge(output), output.new_empty(0), output.shape
        self.spread = spread

    @property
    def groups(self):
        return self.settings[3] if self.op in ("conv", "conv_transpose") else 1

    def n_seen(self):
        """How many vectors, indices or maps the function saw; 0 where that says nothing of rows."""
        if not isinstance(self.x, torch.Tensor) or not self.x.numel():
            return 0
        if self.op in ("conv", "conv_transpose"):
            return len(self.x)
        return self.x.numel() // (1 if self.op.startswith("embedding") else self.x.shape[-1])

    def rows_of(self, grad, n_rows):
        """The gradient with rows in it, from what arrived at the edge (None: nothing did)."""
        grad = self.like.new_zeros(self.shape) if grad is None else grad.detach()
        return grad if self.spread is None else self.spread.per_row(grad, n_rows)


def _opened(function):
    """A Python function of torch that asks first whether a mode is active, without that question.

    Run inside the mode, its inner calls are then seen one by one.
    """
    scope = {**function.__globals__, "has_torch_function": lambda *args: False}
    copy = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


OPENED = {
    function: _opened(function)
    for function in (F.multi_head_attention_forward,)
    if "has_torch_function" in function.__code__.co_names  # else it would ask, and be sent here, for ever
}


class Recorder(TorchFunctionMode):
    """Notes in ``uses`` every use of the ``watched`` parameters that one of :data:`READERS` understands.

    Parameters
    ----------
    watched : dict of int to str
        ``id(parameter)`` to its name.
    spread : dict of str to tuple of int
        Parameters to be parted by rows where they are broadcast, and the axes that the rows may be in.
    shared : collection of str
        Parameters whose layer sees one input for all rows: what it puts out is parted by rows.
    known : dict of str to list of bool
        ``expansions`` of a run on several rows, to tell what a batch of one leaves open.

    Attributes
    ----------
    uses : list of Use
    expansions : dict of str to list of bool
        Of every expansion of a parameter in its order: whether it was along the axis of the rows.
    """

    def __init__(self, watched, spread=(), shared=(), known=()):
        super().__init__()
        self._known, self.expansions = dict(known), {}
        self._watched, self._spread, self._shared, self.uses = watched, dict(spread), set(shared), []
        self._rowless = {}  # id of an output without rows: that output, and its Use

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in OPENED:
            with self:
                return OPENED[func](*args, **kwargs)
        steps = unrolled(func, args, kwargs)
        if steps is not None and self._watches_any(args):
            with self:
                return steps(*args, **kwargs)
        if func in ELEMENTWISE and len(args) == 2 and (self._spread or self._rowless):
            args = self._parted(func, args)
        output = func(*args, **kwargs)
        if func in READERS and isinstance(output, torch.Tensor) and output.requires_grad:
            op, x, weight, bias, settings = READERS[func](*args, **kwargs)
            weight, bias = self._resolve(weight), self._resolve(bias)
            if weight is not None or bias is not None:
                use = Use(op, x, weight, bias, settings, output)
                if op in ("linear", "matmul", "embedding") and (weight or bias)[0] in self._shared:
                    self._rowless[id(output)] = (output, use)
                else:
                    self.uses.append(use)
        elif func in EXPANSIONS:
            self._note_spread(args[0], output)
        return output

    def _watches_any(self, args):
        return any(id(w) in self._watched for arg in args for w in (arg if isinstance(arg, (list, tuple)) else [arg]))

    def _resolve(self, tensor):
        """(name, first line) of a parameter, or of a part of one that is some of its lines."""
        if not isinstance(tensor, torch.Tensor):
            return None
        if id(tensor) in self._watched:
            return self._watched[id(tensor)], 0
        base = view_base(tensor)
        if base is None or id(base) not in self._watched or not base.numel() or base.dim() != tensor.dim():
            return None
        if tensor.shape[1:] != base.shape[1:] or tensor.stride() != base.stride():
            return None
        return self._watched[id(base)], (tensor.storage_offset() - base.storage_offset()) // base.stride(0)

    def _parted(self, func, args):
        """The operands of an elementwise function, those without rows expanded along the axis of the rows."""
        args = list(args)
        for i in (1,) if func in IN_PLACE else (0, 1):
            operand, other = args[i], args[1 - i]
            if not isinstance(operand, torch.Tensor) or not isinstance(other, torch.Tensor):
                continue
            base, axes = self._without_rows(operand)
            for axis in axes:
                spread = spread_of(operand, base, tuple(other.shape), axis)
                if spread is not None:
                    sizes = list(spread.sizes)
                    sizes[axis] = other.shape[axis]
                    args[i] = operand.expand(sizes)
                    self._note(base, args[i], spread)
                    break
        return args

    def _note_spread(self, operand, output):
        """Note an expansion along the axis of the rows that the network does by itself."""
        base, axes = self._without_rows(operand)
        if not axes:
            return
        name = self._name_without_rows(base)
        log = self.expansions.setdefault(name, [])
        # To one row, it leaves the shape as it is, like an expansion of other axes, which a later one follows.
        known = self._known.get(name, [])[len(log) : len(log) + 1] == [True]
        for axis in axes:
            spread = spread_of(operand, base, tuple(output.shape), axis)
            if spread is None or not (output.shape[axis] > 1 or known):
                continue
            if all(size in (1, given) for size, given in zip(spread.sizes, output.shape)):
                self._note(base, output, spread)
                log.append(True)
                return
        log.append(False)

    def _name_without_rows(self, base):
        if id(base) not in self._rowless:
            return self._watched[id(base)]
        use = self._rowless[id(base)][1]
        return (use.weight or use.bias)[0]

    def _without_rows(self, tensor):
        base = view_base(tensor)
        base = tensor if base is None else base
        if not tensor.requires_grad:
            return base, ()
        if id(base) in self._rowless:
            return base, (0,)
        return base, self._spread.get(self._watched.get(id(base)), ())

    def _note(self, base, output, spread):
        if id(base) not in self._rowless:
            self.uses.append(Use("broadcast", None, (self._watched[id(base)], 0), None, (), output, spread))
            return
        use = self._rowless[id(base)][1]
        x = use.x.unsqueeze(0).expand(output.shape[spread.axis], *use.x.shape)
        self.uses.append(Use(use.op, x, use.weight, use.bias, use.settings, output, spread))
