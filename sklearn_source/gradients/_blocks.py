"""Which parameters are attributed, and as which matrices."""

from __future__ import annotations

import difflib
from collections import Counter
from dataclasses import dataclass

import torch

from ._rules import FACTORED_RULES


@dataclass(frozen=True)
class Block:
    """One matrix-shaped piece of the parameters: the unit of every block-diagonal curvature.

    Attributes
    ----------
    name : str
        The layer's name, with ``.weight``/``.bias`` where the block holds only that.
    kind : {"factored", "leaf", "dense"}
        How its per-row gradient is found: from a layer's inputs and output gradients, by ``torch.func`` on one layer,
        or by ``torch.func`` through the whole network.
    parameters : tuple of str
        Names in ``module.named_parameters()``; (weight, bias) is a weight with the bias as its last column.
    shape : tuple of int
        (groups, out, in), the bias's column included.
    module : str
        The owning layer's name.
    """

    name: str
    kind: str
    parameters: tuple[str, ...]
    shape: tuple[int, int, int]
    module: str = ""
    rule: object = None
    part: str = "both"

    @property
    def size(self):
        return self.shape[0] * self.shape[1] * self.shape[2]


def select_parameters(module, layers=None):
    """Names of the trainable parameters that ``layers`` chooses, in ``named_parameters`` order.

    ``layers`` is None (all), a name or a list of names, each of a layer (all below it) or of a parameter.
    """
    trainable = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    if not trainable:
        raise ValueError("the network has no parameter with requires_grad=True: there is nothing to attribute to")
    if layers is None:
        return trainable
    layers = [layers] if isinstance(layers, str) else list(layers)
    if not layers:
        raise ValueError("layers: an empty list chooses no parameter; None stands for all of them")
    chosen = set()
    for layer in layers:
        below = [name for name in trainable if name == layer or name.startswith(f"{layer}.") or layer == ""]
        if not below:
            known = [name for name, _ in module.named_modules() if name] + [
                name for name, _ in module.named_parameters()
            ]
            if layer in known:
                raise ValueError(f"layers: {layer!r} has no trainable parameter (requires_grad=True)")
            near = difflib.get_close_matches(str(layer), known, n=3) or known[:6]
            raise ValueError(f"layers: the network has no layer or parameter {layer!r}; did you mean one of {near}?")
        chosen.update(below)
    return [name for name in trainable if name in chosen]


def matrix_shape(parameter):
    """A parameter without a factored form as (1, out, in): vectors as one column, the rest by their first axis."""
    if parameter.dim() < 2:
        return (1, parameter.numel(), 1)
    return (1, parameter.shape[0], parameter.numel() // parameter.shape[0])


def plan_blocks(module, names, *, treatment=None, demoted=()):
    """Split the chosen parameters into blocks.

    Parameters
    ----------
    module : torch.nn.Module
    names : list of str
        The chosen parameters.
    treatment : dict of str to hashable, optional
        What the optimizer did with each parameter; a weight and a bias treated differently become two blocks.
    demoted : collection of str
        Layers whose quick way was found wrong for this network: all their parameters go the dense way.
    """
    treatment = treatment or {}
    chosen = set(names)
    owners = Counter(id(p) for m in module.modules() for p in m.parameters(recurse=False))
    blocks, done = [], set()
    for layer_name, layer in module.named_modules():
        prefix = f"{layer_name}." if layer_name else ""
        own = {k: p for k, p in layer.named_parameters(recurse=False) if prefix + k in chosen}
        if not own or layer_name in demoted or any(owners[id(p)] > 1 for p in own.values()):
            continue  # a parameter that several layers own is one parameter: only the dense way sees all its uses
        rule = next((r for r in FACTORED_RULES if r.matches(layer)), None)
        if rule is not None and set(own) <= {"weight", "bias"}:
            blocks += _factored_blocks(layer_name, layer, rule, own, prefix, treatment)
        elif rule is None and not list(layer.children()):
            blocks += [
                Block(prefix + k, "leaf", (prefix + k,), matrix_shape(p), layer_name, part=k) for k, p in own.items()
            ]
        else:
            continue
        done.update(prefix + k for k in own)
    parameters = dict(module.named_parameters())
    blocks += [Block(n, "dense", (n,), matrix_shape(parameters[n])) for n in names if n not in done]
    order = {name: i for i, name in enumerate(names)}
    return sorted(blocks, key=lambda block: order[block.parameters[0]])


def _factored_blocks(layer_name, layer, rule, own, prefix, treatment):
    groups, out, width = rule.shape(layer)
    weight, bias = prefix + "weight", prefix + "bias"
    together = len(own) == 2 and treatment.get(weight) == treatment.get(bias)
    if together:
        return [Block(layer_name or "weight", "factored", (weight, bias), (groups, out, width + 1), layer_name, rule)]
    parts = []
    if "weight" in own:
        parts.append(Block(weight, "factored", (weight,), (groups, out, width), layer_name, rule, "weight"))
    if "bias" in own:
        parts.append(Block(bias, "factored", (bias,), (1, groups * out, 1), layer_name, rule, "bias"))
    return parts


def to_matrices(block, module, values):
    """Parameter-shaped tensors (lead axes allowed) of one block as (..., groups, out, in)."""
    if block.kind != "factored":
        value = values[block.parameters[0]]
        lead = value.shape[: value.dim() - module.get_parameter(block.parameters[0]).dim()]
        return value.reshape(*lead, *block.shape)
    layer = module.get_submodule(block.module)
    columns = []
    if block.part in ("both", "weight"):
        columns.append(block.rule.to_matrix(layer, values[block.parameters[0]]))
    if block.part in ("both", "bias"):
        bias = values[block.parameters[-1]]
        columns.append(bias.reshape(*bias.shape[:-1], block.shape[0], block.shape[1], 1))
    return torch.cat(columns, dim=-1)


def from_matrices(block, module, matrices):
    """The inverse of :func:`to_matrices`: dict of parameter name to tensor, lead axes kept."""
    lead = matrices.shape[:-3]
    if block.kind != "factored":
        name = block.parameters[0]
        return {name: matrices.reshape((*lead, *module.get_parameter(name).shape))}
    layer = module.get_submodule(block.module)
    values = {}
    if block.part in ("both", "weight"):
        weight = matrices if block.part == "weight" else matrices[..., :-1]
        values[block.parameters[0]] = block.rule.from_matrix(layer, weight)
    if block.part in ("both", "bias"):
        values[block.parameters[-1]] = matrices[..., -1].reshape(*lead, block.shape[0] * block.shape[1])
    return values
