"""Where a parameter is used in a forward pass: seen as torch's functions are called, whichever module calls them."""

from __future__ import annotations

import math

import torch
from torch.autograd.graph import get_gradient_edge
from torch.overrides import TorchFunctionMode

from ..utils._compat_torch import is_plain, tree_leaves, view_base
from .layers import (
    ELEMENTWISE,
    EXPANSIONS,
    IN_PLACE,
    READERS,
    SUBSTITUTES,
    BroadcastParameter,
    Derived,
    broadcast_of,
    member_of,
)


class ParameterUse:
    """One use of parameters by one function: what went in, and where the gradient of what came out arrives.

    Attributes
    ----------
    rule : type of ParameterRule
        How the weight is used.
    x : Tensor or callable
        The function's input; of an embedding the indices, of a norm what gives the normalised input.
    weight, bias : (str, int) or None
        Name of the parameter and the line at which the used part of it starts.
    settings : tuple
        What else of the function's arguments the rule needs.
    groups : int
        Of a grouped convolution.
    edge : torch.autograd.graph.GradientEdge
        The edge, not the output, is kept: a later in-place operation rewrites the output but not the edge.
    broadcast : Broadcast or None
        How the output, or the parameter itself, met the rows where it has none of its own.
    """

    __slots__ = ("rule", "x", "weight", "bias", "settings", "groups", "edge", "like", "shape", "broadcast")

    def __init__(self, rule, x, weight, bias, settings, groups, output, broadcast=None):
        self.rule, self.x, self.weight, self.bias = rule, x, weight, bias
        self.settings, self.groups, self.broadcast = settings, groups, broadcast
        self.edge, self.like, self.shape = get_gradient_edge(output), output.new_empty(0), output.shape

    @property
    def name(self):
        """The weight's, or where there is none the bias's."""
        return (self.weight or self.bias)[0]

    @property
    def names(self):
        """Of the weight and the bias, as far as there are."""
        return [part[0] for part in (self.weight, self.bias) if part is not None]

    @property
    def is_of_member(self):
        """Whether it is of one matrix of a stack of them."""
        return isinstance(self.groups, str) and "g" in self.groups and len(self.x) == 1

    def n_positions_seen(self):
        """How many vectors, indices or maps the function saw."""
        if isinstance(self.x, torch.Tensor):
            return self.rule.n_positions_seen(self.x) if self.x.numel() else 0
        return math.prod(self.shape[:-1])  # a norm, or a parameter that meets the rows elsewhere

    def is_uneven(self, n_rows):
        """Whether that is nothing, or cannot be as many of every row."""
        seen = self.n_positions_seen()
        return seen % n_rows > 0 or seen == 0

    def per_row(self, grad, n_rows):
        """The gradient with rows in it, from what arrived at the edge (None: nothing did)."""
        grad = self.like.new_zeros(self.shape) if grad is None else grad.detach()
        return grad if self.broadcast is None else self.broadcast.per_row(grad, n_rows)


def names_used(uses, calls):
    """Names of the parameters that functions used, and of the layers that were called."""
    return {name for use in uses for name in use.names} | set(calls)


class Recorder(TorchFunctionMode):
    """Notes in ``uses`` every use of the ``watched`` parameters that a reader of ``layers`` understands.

    Parameters
    ----------
    watched : dict of int to str
        ``id(parameter)`` to its name.
    broadcast : dict of str to tuple of int
        Parameters to be taken apart by rows where they are broadcast, and the axes that the rows may be in.
    shared : collection of str
        Parameters whose layer sees one input for all rows: what it puts out is taken apart by rows.
    known : dict of str to list of bool
        ``expansions`` of a run on several rows, to tell what a batch of one leaves open.

    Attributes
    ----------
    uses : list of ParameterUse
    expansions : dict of str to list of bool
        Of every expansion of a parameter in its order: whether it was along the axis of the rows.
    """

    def __init__(self, watched, broadcast=(), shared=(), known=()):
        super().__init__()
        self._known, self.expansions = dict(known), {}
        self._watched, self._broadcast, self._shared, self.uses = watched, dict(broadcast), set(shared), []
        self._rowless = {}  # id of an output without rows: that output, and its ParameterUse
        self._derived = {}  # id of what was computed of a parameter alone: Derived

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in SUBSTITUTES and self._watches_any(args, kwargs):
            substitute = SUBSTITUTES[func](args, kwargs)
            if substitute is not None:
                with self:
                    return substitute(*args, **kwargs)
        if func in ELEMENTWISE and len(args) == 2 and (self._broadcast or self._rowless):
            args = self._expanded(func, args)
        output = func(*args, **kwargs)
        if func in READERS and is_plain(output) and output.requires_grad:
            self._note_use(READERS[func](*args, **kwargs), output)
        elif func in EXPANSIONS and is_plain(output):
            self._note_expansion(args[0], output)
        elif self._broadcast and is_plain(output) and output.requires_grad:
            self._note_derivation(args, kwargs, output)
        return output

    def _note_use(self, arguments, output):
        """Note what a reader read (:class:`Arguments` or None) where it is of a watched parameter."""
        if arguments is None:
            return
        weight, bias = self._resolve(arguments.weight), self._resolve(arguments.bias)
        base = view_base(arguments.weight) if weight is None and is_plain(arguments.weight) else None
        if base is not None and id(base) in self._watched:
            arguments, number = member_of(arguments, base) or (arguments, None)
            weight = None if number is None else (self._watched[id(base)], number)
            bias = bias if number is None else self._line_of(arguments.bias)
        if weight is None and bias is None:
            return
        rule, x, _, _, settings, groups = arguments
        use = ParameterUse(rule, x, weight, bias, settings, groups, output)
        if rule.may_lack_rows and use.name in self._shared:
            self._rowless[id(output)] = (output, use)
        else:
            self.uses.append(use)

    def _line_of(self, tensor):
        """(name, number) of a parameter whose line with that number a tensor is; None where it is none."""
        base = view_base(tensor) if is_plain(tensor) else None
        if base is None or id(base) not in self._watched or base.dim() != tensor.dim() + 1:
            return None
        if tensor.shape != base.shape[1:] or tensor.stride() != base.stride()[1:]:
            return None
        return self._watched[id(base)], (tensor.storage_offset() - base.storage_offset()) // base.stride(0)

    def _watches_any(self, args, kwargs):
        """Whether a watched parameter, or a part of one, is among the arguments or in a list among them."""
        for arg in (*args, *kwargs.values()):
            for t in arg if isinstance(arg, (list, tuple)) else [arg]:
                if self._resolve(t) is not None or (is_plain(t) and id(view_base(t)) in self._watched):
                    return True
        return False

    def _resolve(self, tensor):
        """(name, first line) of a parameter, or of a part of one that is some of its lines."""
        if not is_plain(tensor):
            return None
        if id(tensor) in self._watched:
            return self._watched[id(tensor)], 0
        base = view_base(tensor)
        if base is None or id(base) not in self._watched or not base.numel() or base.dim() != tensor.dim():
            return None
        if tensor.shape[1:] != base.shape[1:] or tensor.stride() != base.stride():
            return None
        return self._watched[id(base)], (tensor.storage_offset() - base.storage_offset()) // base.stride(0)

    def _expanded(self, func, args):
        """The operands of an elementwise function, those without rows expanded along the axis of the rows."""
        args = list(args)
        for i in (1,) if func in IN_PLACE else (0, 1):
            operand, other = args[i], args[1 - i]
            if not is_plain(operand) or not is_plain(other):
                continue
            base, axes = self._without_rows(operand)
            for axis in axes:
                broadcast = broadcast_of(operand, base, tuple(other.shape), axis)
                if broadcast is not None:
                    sizes = list(broadcast.sizes)
                    sizes[axis] = other.shape[axis]
                    args[i] = operand.expand(sizes)
                    self._note_broadcast(base, args[i], broadcast)
                    break
        return args

    def _note_expansion(self, operand, output):
        """Note an expansion along the axis of the rows that the network does by itself."""
        base, axes = self._without_rows(operand)
        if not axes:
            return
        name = self._name_without_rows(base)
        log = self.expansions.setdefault(name, [])
        # To one row, it leaves the shape as it is, like an expansion of other axes, which a later one follows.
        known = self._known.get(name, [])[len(log) : len(log) + 1] == [True]
        for axis in axes:
            broadcast = broadcast_of(operand, base, tuple(output.shape), axis)
            if broadcast is None or not (output.shape[axis] > 1 or known):
                continue
            if all(size in (1, given) for size, given in zip(broadcast.sizes, output.shape)):
                self._note_broadcast(base, output, broadcast)
                log.append(True)
                return
        log.append(False)

    def _note_derivation(self, args, kwargs, output):
        """Note what a function made of one parameter alone, where that may be broadcast over the rows."""
        sources = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if len(sources) != 1 or not is_plain(sources[0]) or view_base(output) is not None or output is sources[0]:
            return
        base, axes = self._without_rows(sources[0])
        if axes and id(base) not in self._rowless and id(output) not in self._watched:
            known = self._derived.get(id(base))
            parameter, name = (base, self._watched[id(base)]) if known is None else (known.parameter, known.name)
            self._derived[id(output)] = Derived(output, parameter, name)

    def _name_without_rows(self, base):
        """The parameter that a tensor without rows is, or that gave it."""
        if id(base) in self._derived:
            return self._derived[id(base)].name
        return self._rowless[id(base)][1].name if id(base) in self._rowless else self._watched[id(base)]

    def _without_rows(self, tensor):
        """The base of a tensor, and the axes that its rows may be in where it has none of its own."""
        base = view_base(tensor)
        base = tensor if base is None else base
        if not tensor.requires_grad:
            return base, ()
        if id(base) in self._rowless:
            return base, (0,)
        derived = self._derived.get(id(base))
        name = self._watched.get(id(base)) if derived is None else derived.name
        return base, self._broadcast.get(name, ())

    def _note_broadcast(self, base, output, broadcast):
        """Note that ``output`` is ``base``, a parameter or an output without rows, broadcast over the rows."""
        if id(base) not in self._rowless:
            weight, derived = (self._name_without_rows(base), 0), self._derived.get(id(base))
            self.uses.append(ParameterUse(BroadcastParameter, derived, weight, None, (), 1, output, broadcast))
            return
        use = self._rowless[id(base)][1]
        x = use.x.unsqueeze(0).expand(output.shape[broadcast.axis], *use.x.shape)
        self.uses.append(ParameterUse(use.rule, x, use.weight, use.bias, use.settings, use.groups, output, broadcast))
