"""Which parameters are attributed, and as which matrices."""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from dataclasses import dataclass

import torch

from ..utils._warnings import warn
from ._block_forms import claims_of, observed_claims
from .layers import MIXABLE, EmbeddingRule, MixedRule, VectorRule, rule_of


@dataclass(frozen=True)
class Block:
    """One matrix-shaped piece of the parameters: the unit of every block-diagonal curvature.

    Attributes
    ----------
    name : str
        The layer's name, or the parameter's where the block holds only that.
    kind : {"factored", "indexed", "mixed", "affine", "leaf", "dense"}
        How its per-row gradient is found: from the inputs and output gradients of the functions that use a weight or a
        bias; from the indices that looked up an embedding; as the sum of both, of a weight that is tied to an
        embedding; as a sum over positions, for the affine parameters of a norm and for what is broadcast; by
        ``torch.func`` on one layer; or by ``torch.func`` through the whole network.
    parameters : tuple of str
        Names in ``module.named_parameters()``; (weight, bias) is a weight with the bias as its last column.
    shape : tuple of int
        (groups, out, in), the bias's column included.
    module : str
        The owning layer's name.
    rows : {"first", "second", "shared"}
        Whether rows are the first axis of what the layer sees, the second, as in (T, B, d), or none, as where positions
        are embedded that are the same for all rows.
    """

    name: str
    kind: str
    parameters: tuple[str, ...]
    shape: tuple[int, int, int]
    module: str = ""
    rule: object = None
    rows: str = "first"

    @property
    def size(self):
        return self.shape[0] * self.shape[1] * self.shape[2]


def select_parameters(module, layers=None):
    """Names of the trainable parameters that ``layers`` chooses, in ``named_parameters`` order.

    ``layers`` is None (all), a name or a list of names, each of a layer (all below it) or of a parameter. What
    ``torch.compile`` puts into names (``_orig_mod``) may be left out. A parameter that several layers share goes by
    its first name, and is chosen by any of them.
    """
    trainable, left_out = [], []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            (trainable if parameter.is_floating_point() else left_out).append(name)
    if not trainable:
        only = f" (but complex ones: {left_out})" if left_out else ""
        raise ValueError(
            f"the network has no parameter with requires_grad=True: there is nothing to attribute to{only}"
        )
    if left_out and layers is None:
        warn(
            f"complex parameters have no real curvature and are left out of the attribution: {left_out}",
        )
    if layers is None:
        return trainable
    layers = [layers] if isinstance(layers, str) else list(layers)
    if not layers:
        raise ValueError("layers: an empty list chooses no parameter; None stands for all of them")
    chosen = set()
    first = {id(parameter): name for name, parameter in module.named_parameters()}
    for layer in layers:
        below = {
            first[id(parameter)]
            for name, parameter in module.named_parameters(remove_duplicate=False)
            if first[id(parameter)] in trainable and (_is_below(name, layer) or _is_below(_uncompiled(name), layer))
        }
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


def _is_below(name, layer):
    return layer == "" or name == layer or name.startswith(f"{layer}.")


def _uncompiled(name):
    return name.replace("_orig_mod.", "")


def matrix_shape(parameter):
    """A parameter without a factored form as (1, out, in): vectors as one column, the rest by their first axis."""
    if parameter.dim() < 2:
        return (1, parameter.numel(), 1)
    return (1, parameter.shape[0], parameter.numel() // parameter.shape[0])


# Where rows are looked for, one after the other.
ROWS = ("first", "second", "shared")


def _ways(op):
    """How many of :data:`ROWS` there are for a kind of use."""
    return 3 if op in ("linear", "matmul", "embedding") else 2


def plan_blocks(module, names, *, treatment=None, levels=None, uses=()):
    """Split the chosen parameters into blocks.

    Parameters
    ----------
    module : torch.nn.Module
    names : list of str
        The chosen parameters.
    treatment : dict of str to hashable, optional
        What the optimizer did with each parameter; a weight and a bias treated differently become two blocks.
    levels : dict of str to int, optional
        How often the quick way was found wrong for an owner in this network: then its rows are looked for elsewhere
        (:data:`ROWS`), and in the end all its parameters go the dense way.
    uses : sequence of Use, optional
        Those of one forward pass: for parameters that belong to no layer of a known kind, and for others that are used
        in further ways.
    """
    plan = _Plan(module, names, treatment or {}, levels or {})
    for owner, layer in module.named_modules():
        for claim in claims_of(layer):
            held = dict(layer.named_parameters(recurse=False, remove_duplicate=False))
            own = {part: held.get(getattr(claim, part)) for part in ("weight", "bias")}
            plan.claim(owner, claim, *(p if p is None else plan.name_of[id(p)] for p in own.values()))
    for claim in observed_claims(uses, set(names) - plan.claimed):
        plan.claim(claim.weight, claim, claim.weight, claim.bias)
    blocks = plan.quick_blocks(uses)
    done = {name for block in blocks for name in block.parameters}
    for name in names:
        if name not in done:
            blocks.append(plan.slow_block(name))
    order = {name: i for i, name in enumerate(names)}
    return sorted(blocks, key=lambda block: order[block.parameters[0]])


class _Plan:
    def __init__(self, module, names, treatment, levels):
        self.module, self.chosen, self.treatment, self.levels = module, set(names), treatment, levels
        self.parameters = dict(module.named_parameters())
        self.name_of = {id(p): name for name, p in self.parameters.items()}
        owned = (m.named_parameters(recurse=False, remove_duplicate=False) for m in module.modules())
        self.owners = Counter(id(p) for own in owned for _, p in own)
        self._claims = []

    @property
    def claimed(self):
        return {name for _, _, *pair in self._claims for name in pair if name is not None}

    def claim(self, owner, claim, weight, bias):
        self._claims.append((owner, claim, weight, bias))

    def quick_blocks(self, uses):
        """Blocks of the claims that do not contradict each other, each parameter once."""
        kinds = defaultdict(set)
        for _, claim, weight, bias in self._claims:
            kinds[weight].add((claim.op, claim.groups, "weight"))
            kinds[bias].add((claim.op, claim.groups, "bias"))
        for use in uses:
            if use.weight is not None:
                kinds[use.weight[0]].add((use.op, use.groups, "weight"))
        done, blocks = set(), []
        for owner, claim, *pair in self._claims:
            level = self.levels.get(owner, 0)
            if level >= _ways(claim.op):
                continue
            left = [name if name in self.chosen - done else None for name in pair]
            if left[0] is not None and len(kinds[left[0]]) > 1:
                blocks += self._mixed(owner, left[0], kinds[left[0]], ROWS[level])
                done.add(left[0])
            left = [name if name in self.chosen - done and len(kinds[name]) == 1 else None for name in pair]
            if left != [None, None]:
                blocks += self._of_claim(owner, claim, *left, ROWS[level])
                done.update(left)
        return blocks

    def _mixed(self, owner, name, kinds, rows):
        """The block of a matrix that is used in several ways; none where these do not add up to one matrix."""
        if any(op not in MIXABLE or part != "weight" for op, _, part in kinds):
            return []
        shape = tuple(self.parameters[name].shape)
        rule = MixedRule(shape, tuple(rule_of(op, shape) for op, _, _ in sorted(kinds)))
        return [Block(name, "mixed", (name,), matrix_shape(self.parameters[name]), owner, rule, rows)]

    def _of_claim(self, owner, claim, weight, bias, rows):
        shapes = [None if n is None else tuple(self.parameters[n].shape) for n in (weight, bias)]
        rule = None if weight is None else rule_of(claim.op, shapes[0], claim.groups)
        if claim.op in ("norm", "broadcast"):
            name, shape = (weight, shapes[0]) if bias is None else (bias, shapes[1])
            rule = rule if bias is None else VectorRule(shape)
            return [Block(name, "affine", (name,), matrix_shape(self.parameters[name]), owner, rule, rows)]
        alone = all(self.owners[id(self.parameters[n])] == 1 for n in (weight, bias) if n is not None)
        alike = self.treatment.get(weight) == self.treatment.get(bias)
        if weight is not None and bias is not None and rule.joins_bias and alone and alike:
            groups, out, width = rule.shape
            name = owner if claim.weight == "weight" and owner else weight
            return [Block(name, "factored", (weight, bias), (groups, out, width + 1), owner, rule, rows)]
        parts = []
        if weight is not None:
            kind = "indexed" if isinstance(rule, EmbeddingRule) else "factored"
            parts.append(Block(weight, kind, (weight,), rule.shape, owner, rule, rows))
        if bias is not None:
            parts.append(Block(bias, "factored", (bias,), (1, *shapes[1], 1), owner, VectorRule(shapes[1]), rows))
        return parts

    def slow_block(self, name):
        """By ``torch.func``: on the layer alone where one layer without others below it owns the parameter."""
        parameter = self.parameters[name]
        host = name.rpartition(".")[0].split("parametrizations.")[0].rstrip(".")
        below = {child.split(".")[0] for child, _ in self.module.get_submodule(host).named_children()}
        level = self.levels.get(host, 0)
        # A parameter that several layers own is one parameter: only the dense way sees all its uses.
        if below - {"parametrizations"} or level > 1 or self.owners[id(parameter)] > 1:
            return Block(name, "dense", (name,), matrix_shape(parameter))
        return Block(name, "leaf", (name,), matrix_shape(parameter), host, None, ROWS[level])


def to_matrices(block, module, values):
    """Parameter-shaped tensors (lead axes allowed) of one block as (..., groups, out, in)."""
    value = values[block.parameters[0]]
    if block.kind not in ("factored", "indexed") or isinstance(block.rule, VectorRule):
        lead = value.shape[: value.dim() - module.get_parameter(block.parameters[0]).dim()]
        return value.reshape(*lead, *block.shape)
    matrices = block.rule.to_matrix(value)
    if len(block.parameters) == 1:
        return matrices
    bias = values[block.parameters[1]]
    return torch.cat([matrices, bias.reshape(*bias.shape[:-1], *block.shape[:2], 1)], dim=-1)


def from_matrices(block, module, matrices):
    """The inverse of :func:`to_matrices`: dict of parameter name to tensor, lead axes kept."""
    lead, name = matrices.shape[:-3], block.parameters[0]
    if block.kind not in ("factored", "indexed") or isinstance(block.rule, VectorRule):
        return {name: matrices.reshape((*lead, *module.get_parameter(name).shape))}
    if len(block.parameters) == 1:
        return {name: block.rule.from_matrix(matrices)}
    bias = matrices[..., -1].reshape(*lead, block.shape[0] * block.shape[1])
    return {name: block.rule.from_matrix(matrices[..., :-1]), block.parameters[1]: bias}
