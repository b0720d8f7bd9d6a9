"""A training step of stacked networks recorded once as a list of tensor operations, and replayed from then on.

Half of a step of small networks is not arithmetic but finding out what to compute, through modules, vmap and autograd.
Steps on batches of one shape are the same operations, so they are recorded (by ``make_fx``), rid of those that change
nothing, and made to write into memory that is still in the cache.
"""

from __future__ import annotations

from collections import OrderedDict

import torch

from ..utils._compat_torch import recorded, schema_of, unsafe_view
from ..utils._locks import ThreadLock

aten = torch.ops.aten
# Recordings of this process, the latest last: workers train one part of a retraining after the other.
_RECORDED: OrderedDict = OrderedDict()
_MAX_RECORDINGS = 16
# Recording patches torch.nn.Module for the whole process: two at a time would leave it patched.
_RECORDING = ThreadLock()
_IDENTITIES = {aten.expand.default, aten.view.default, unsafe_view, aten.detach.default, aten.alias.default}


def replay(name, function, args):
    """``function(*args)``, by a recording of it.

    Parameters
    ----------
    name : str
        What the function does: two of one name do the same operations on tensors of the same shapes and types.
    function : callable
        Of tensors, which gives a list of tensors. Its operations must not depend on their values, and it must leave
        what is not a tensor as it is.
    args : list of Tensor

    Returns
    -------
    results : list of Tensor
        The same as without a recording, without their history.
    """
    key = (name, *((a.shape, a.stride(), a.dtype, a.device, a.requires_grad) for a in args))
    graph = _RECORDED.get(key)
    if graph is None:
        with _RECORDING:
            graph = _RECORDED[key] = _record(function, args)
            while len(_RECORDED) > _MAX_RECORDINGS:
                _RECORDED.popitem(last=False)
    with torch.no_grad():
        return graph(*args)


def _record(function, args):
    """A callable that replays the operations of ``function(*args)`` on other tensors of the same shapes and types."""
    # Recording runs the function: on copies, as it may change its arguments (running means, say).
    graph = recorded(function, *(a.detach().clone().requires_grad_(a.requires_grad) for a in args))
    if not any(_is_mutating(node) for node in graph.graph.nodes):
        specs = _tensor_specs(graph, args)
        _drop_identities(graph.graph, specs)
        _drop_dead_code(graph.graph)
        _reuse_memory(graph.graph, specs)
    graph.recompile()
    return graph.forward


def _is_mutating(node):
    """Whether an operation writes into its arguments."""
    return schema_of(node.target) is not None and schema_of(node.target).is_mutable


def _tensor_specs(graph, args):
    """Shape, strides and type of every node's tensor."""
    specs = {}

    class SpecRecorder(torch.fx.Interpreter):
        def run_node(self, node):
            result = super().run_node(node)
            if isinstance(result, torch.Tensor):
                specs[node] = (result.shape, result.stride(), result.dtype)
            return result

    with torch.no_grad():
        SpecRecorder(graph).run(*args)
    return specs


def _drop_identities(graph, specs):
    """Take operations out of a graph whose result is their argument, by the ``specs`` of its nodes."""
    for node in graph.nodes:
        if node.op != "call_function" or not node.args or not isinstance(node.args[0], torch.fx.Node):
            continue
        source = node.args[0]
        if node.target is aten.transpose.int and source.target is aten.transpose.int:
            if specs[node] == specs[source.args[0]]:  # transposed and transposed back
                node.replace_all_uses_with(source.args[0])
        elif node.target in _IDENTITIES or (node.target is aten.mul.Scalar and node.args[1] == 1):
            if specs[node] == specs.get(source):
                node.replace_all_uses_with(source)


def _drop_dead_code(graph):
    """Take operations out of a graph whose results nobody reads."""
    for node in reversed(graph.nodes):
        if node.op == "call_function" and not node.users:
            graph.erase_node(node)


def _reuse_memory(graph, specs):
    """Let elementwise operations write over an argument that nobody reads any more."""
    order = {node: place for place, node in enumerate(graph.nodes)}
    own = {node for node in graph.nodes if _owns_memory(node)}
    for node in graph.nodes:
        if node.op != "call_function" or torch.Tag.pointwise not in getattr(node.target, "tags", ()):
            continue
        out = _out_overload(node.target)
        spent = next((a for a in node.args if _is_last_use(a, node, order, own) and specs[a] == specs[node]), None)
        if out is None or spent is None:
            continue
        overload, keyword = out
        node.target = overload
        node.kwargs = {**node.kwargs, keyword: spent}


def _out_overload(op):
    """The overload of an operation that writes into a given tensor, and the name of that argument."""
    given = [(a.name, str(a.type)) for a in schema_of(op).arguments]
    for name in op.overloadpacket.overloads():
        overload = getattr(op.overloadpacket, name)
        arguments = schema_of(overload).arguments
        out = [a.name for a in arguments if a.is_out]
        if len(out) == 1 and [(a.name, str(a.type)) for a in arguments if not a.is_out] == given:
            return overload, out[0]
    return None


def _is_last_use(argument, node, order, own):
    """Whether ``node`` is the last to read a tensor that shares its memory with no other; ``own`` are such tensors."""
    if not isinstance(argument, torch.fx.Node) or argument not in own:
        return False
    return all(user is node or (order[user] < order[node] and user in own) for user in argument.users)


def _owns_memory(node):
    """Whether an operation's result has memory of its own."""
    schema = schema_of(node.target)
    return node.op == "call_function" and schema is not None and not any(r.alias_info for r in schema.returns)
