"""Matrices that are used in several ways, as an embedding that is tied to the output's weight."""

from __future__ import annotations

from dataclasses import dataclass

from ..algebra import Dense
from ._parameter_rule import ParameterRule


@dataclass(frozen=True)
class Mixed(ParameterRule):
    """A sum over ``rules`` that add up."""

    rules: tuple[ParameterRule, ...] = ()
    form = "mixed"

    def takes(self, use):
        return any(rule.takes(use) for rule in self.rules)

    def row_gradient(self, pairs, bias, layout, shared):
        total = 0
        for rule in self.rules:
            own = [(use, grad) for use, grad in pairs if rule.takes(use)]
            if own:
                total = total + rule.from_matrix(rule.row_gradient(own, None, layout, shared).matrix())
        return Dense(total.reshape(layout.n_rows, *self.shape))

    def zero_gradient(self, n_rows, bias, like):
        return Dense(like.new_zeros((n_rows, *self.shape)))
