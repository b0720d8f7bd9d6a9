"""How parameters are split into blocks: by the kind of their layers, or by what was seen to use them."""

from __future__ import annotations

from collections import Counter, defaultdict

from ._blocks import ROWS, Block
from .layers import Mixed, ParameterSpec, WholeLayer, WholeNetwork, specs_of


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
    uses : sequence of ParameterUse, optional
        Those of one forward pass: for parameters that belong to no layer of a known kind, and for others that are used
        in further ways.

    Returns
    -------
    blocks : list of Block
        In the order of ``names``, each of which is in one block.
    """
    plan = _Plan(module, names, treatment or {}, levels or {})
    seen = _seen_ways(uses)
    for owner, layer in module.named_modules():
        for spec in specs_of(layer):
            held = dict(layer.named_parameters(recurse=False, remove_duplicate=False))
            own = (held.get(name) for name in (spec.weight, spec.bias))
            own = [p if p is None else plan.name_of[id(p)] for p in own]
            ways = [(spec.rule, spec.groups, as_weight) for as_weight in (True, False)]
            # A layer may be but what holds parameters that something else uses in its own way.
            plan.add(owner, spec, *(None if way not in seen.get(name, [way]) else name for name, way in zip(own, ways)))
    for spec in _observed_specs(uses, set(names) - plan.specified):
        plan.add(spec.weight, spec, spec.weight, spec.bias)
    blocks = plan.blocks_by_uses(uses)
    done = {name for block in blocks for name in block.parameters}
    blocks += [plan.whole_block(name) for name in names if name not in done]
    order = {name: i for i, name in enumerate(names)}
    return sorted(blocks, key=lambda block: order[block.parameters[0]])


def _observed_specs(uses, names):
    """Specs of the parameters ``names`` from the uses of one forward pass (names within the network)."""
    ways, partners = defaultdict(dict), defaultdict(set)
    for use in uses:
        weight, bias = (part and part[0] for part in (use.weight, use.bias))
        if weight in names:
            partners[weight].add(bias if bias in names else None)
            ways[weight][use.rule, use.groups] = None
        if bias in names:
            partners[bias].add(weight)
    specs = []
    for weight, rules in ways.items():
        bias = next(iter(partners[weight])) if len(rules) == len(partners[weight]) == 1 else None
        bias = bias if bias and partners[bias] == {weight} else None
        specs += [ParameterSpec(rule, weight, bias, groups) for rule, groups in rules]
    return specs


def _seen_ways(uses):
    """For every parameter that was used the ways in which: dict of sets of (rule, groups, whether as the weight)."""
    ways = defaultdict(set)
    for use in uses:
        for part, as_weight in ((use.weight, True), (use.bias, False)):
            if part is not None:
                ways[part[0]].add((use.rule, use.groups, as_weight))
    return ways


class _Plan:
    def __init__(self, module, names, treatment, levels):
        self.module, self.chosen, self.treatment, self.levels = module, set(names), treatment, levels
        self.parameters = dict(module.named_parameters())
        self.name_of = {id(p): name for name, p in self.parameters.items()}
        owned = (m.named_parameters(recurse=False, remove_duplicate=False) for m in module.modules())
        self.owners = Counter(id(p) for own in owned for _, p in own)
        self._specs = []

    @property
    def specified(self):
        """Names of the parameters that some spec is of."""
        return {name for _, _, *pair in self._specs for name in pair if name is not None}

    def add(self, owner, spec, weight, bias):
        """Add an owner's spec of a weight and a bias, by their names within the network."""
        self._specs.append((owner, spec, weight, bias))

    def blocks_by_uses(self, uses):
        """Blocks of the specs that do not contradict each other, each parameter once."""
        ways = self._ways_of_using(uses)
        done, blocks = set(), []
        for owner, spec, *pair in self._specs:
            level = self.levels.get(owner, 0)
            if level >= (len(ROWS) if spec.rule.may_lack_rows else len(ROWS) - 1):
                continue
            weight = pair[0] if pair[0] in self.chosen - done else None
            if weight is not None and len(ways[weight]) > 1:
                blocks += self._mixed(owner, weight, ways[weight], ROWS[level])
                done.add(weight)
            left = [name if name in self.chosen - done and len(ways[name]) == 1 else None for name in pair]
            if left != [None, None]:
                blocks += self._of_spec(owner, spec, *left, ROWS[level])
                done.update(left)
        return blocks

    def _ways_of_using(self, uses):
        """For every parameter the ways it is used: dict (an ordered set) of (rule, groups, whether as the weight)."""
        ways = defaultdict(dict)
        for _, spec, weight, bias in self._specs:
            ways[weight][spec.rule, spec.groups, True] = None
            ways[bias][spec.rule, spec.groups, False] = None
        for use in uses:
            if use.weight is not None:
                ways[use.weight[0]][use.rule, use.groups, True] = None
        return ways

    def _shape(self, name):
        return tuple(self.parameters[name].shape)

    def _mixed(self, owner, name, ways, rows):
        """The block of a matrix that is used in several ways; none where these do not add up to one matrix."""
        if not all(rule.adds_up and as_weight for rule, _, as_weight in ways):
            return []
        shape = self._shape(name)
        rule = Mixed(shape, rules=tuple(rule(shape) for rule, _, _ in ways))
        return [Block(name, (name,), rule.shape, rule, owner, rows)]

    def _of_spec(self, owner, spec, weight, bias, rows):
        """The blocks of a spec: one of the weight with the bias, or one of each that is not None."""
        rule = None if weight is None else spec.rule(self._shape(weight), spec.groups)
        bias_rule = None if bias is None else spec.rule.bias_rule(self._shape(bias))
        alone = all(self.owners[id(self.parameters[n])] == 1 for n in (weight, bias) if n is not None)
        alike = self.treatment.get(weight) == self.treatment.get(bias)
        if rule is not None and bias_rule is not None and rule.joins_bias and alone and alike:
            groups, out, width = rule.shape
            name = owner if spec.weight == "weight" and owner else weight
            return [Block(name, (weight, bias), (groups, out, width + 1), rule, owner, rows)]
        parts = [(name, r) for name, r in ((weight, rule), (bias, bias_rule)) if r is not None]
        return [Block(name, (name,), r.shape, r, owner, rows) for name, r in parts]

    def whole_block(self, name):
        """By ``torch.func``: on the layer alone where one layer without others below it owns the parameter."""
        parameter = self.parameters[name]
        host = name.rpartition(".")[0].split("parametrizations.")[0].rstrip(".")
        below = {child.split(".")[0] for child, _ in self.module.get_submodule(host).named_children()}
        level = self.levels.get(host, 0)
        # A parameter that several layers own is one parameter: only the dense way sees all its uses.
        if below - {"parametrizations"} or level > 1 or self.owners[id(parameter)] > 1:
            rule = WholeNetwork(self._shape(name))
            return Block(name, (name,), rule.shape, rule)
        rule = WholeLayer(self._shape(name))
        return Block(name, (name,), rule.shape, rule, host, ROWS[level])
