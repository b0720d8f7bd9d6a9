"""Parameters and buffers of many networks of one kind, stacked."""

from __future__ import annotations

import torch


class StackedParameters:
    """Parameters and buffers of many networks, the network as first axis.

    Weights of linear layers lie transposed in memory: their gradients then come out of the batched product in the same
    layout, and the optimizer need not copy them.
    """

    def __init__(self, module, states):
        self.module, self.n = module, len(states)
        self.leaves, self.transposed = {}, set(_transposed_weights(module))
        for name, p in module.named_parameters():
            stack = torch.stack(
                [parameters[name].mT if name in self.transposed else parameters[name] for parameters, _ in states]
            )
            self.leaves[name] = torch.nn.Parameter(stack.contiguous(), requires_grad=p.requires_grad)
        self.buffers = {n: torch.stack([buffers[n] for _, buffers in states]) for n, _ in module.named_buffers()}

    def _parameters(self, leaves):
        """The stacks in the layout of the module's parameters, by name."""
        return {name: leaf.mT if name in self.transposed else leaf for name, leaf in leaves.items()}

    def state(self, leaves, buffers):
        """What the module of :class:`_BatchLoss` calls its parameters and buffers."""
        return {f"module.{name}": value for name, value in {**self._parameters(leaves), **buffers}.items()}

    def of(self, i, name, value):
        """What network ``i`` has in a tensor that belongs to the parameter or buffer ``name`` of all; a copy."""
        like = self.leaves.get(name, self.buffers.get(name))
        if not isinstance(value, torch.Tensor) or value.shape != like.shape:
            return value  # a step count, say, is one for all
        return (value[i].mT if name in self.transposed else value[i]).clone(memory_format=torch.contiguous_format)

    def split(self):
        """(parameters, buffers) of each network, by name."""
        parameters = {name: value.detach() for name, value in self._parameters(self.leaves).items()}
        return [
            ({n: v[i].contiguous() for n, v in parameters.items()}, {n: v[i].clone() for n, v in self.buffers.items()})
            for i in range(self.n)
        ]


def _transposed_weights(module):
    """Names of the weights of linear layers, which are stacked transposed."""
    for name, part in module.named_modules():
        # A single output's weights are a vector: transposed, it would take the slow path of the batched product.
        if type(part) is torch.nn.Linear and part.out_features > 1:
            yield f"{name}.weight" if name else "weight"
