"""Parameters of no known kind of layer: their gradients come from ``torch.func``, not from uses that were seen."""

from __future__ import annotations

from dataclasses import dataclass

from ._parameter_rule import ParameterRule


@dataclass(frozen=True)
class WholeNetwork(ParameterRule):
    """Through the whole network, the last resort: it suits every parameter and costs a backward pass per row.

    Three axes are taken for a stack of matrices, as experts have them: one matrix of them all would be too wide a side
    to decompose.
    """

    form = "dense"
    by_uses = False

    @property
    def shape(self):
        return self.parameter if len(self.parameter) == 3 else super().shape

    def row_gradient(self, pairs, bias, layout, shared):
        raise NotImplementedError("no use of the parameter is looked for")

    def zero_gradient(self, n_rows, bias, like):
        raise NotImplementedError("no use of the parameter is looked for")


@dataclass(frozen=True)
class WholeLayer(WholeNetwork):
    """Through the one layer that owns the parameter."""

    form = "layer"
    by_layer = True
