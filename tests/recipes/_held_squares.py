"""The preconditioner of an adaptive optimizer, held as it was in a first training.

Methods with a unit take it as given (a documented limit), so the truth that they are held against does too.
"""

from __future__ import annotations

import torch
from skorch.callbacks import Callback

# Which entry of an optimizer's state is the running mean (or sum) of squares, and what its other entries start from.
SQUARES = {
    "Adam": ("exp_avg_sq", {"step": 0.0, "exp_avg": None}),
    "AdamW": ("exp_avg_sq", {"step": 0.0, "exp_avg": None}),
    "NAdam": ("exp_avg_sq", {"step": 0.0, "exp_avg": None, "mu_product": 1.0}),
    "RMSprop": ("square_avg", {"step": 0.0}),
    "Adagrad": ("sum", {"step": 0.0}),
}


class RecordSquares(Callback):
    """Note what the running squares become in every step."""

    def __init__(self, steps):
        self.steps = steps

    def on_train_begin(self, net, **kwargs):
        self.position_ = 0

    def on_grad_computed(self, net, named_parameters, **kwargs):
        key, others = SQUARES[type(net.optimizer_).__name__]
        for group in net.optimizer_.param_groups:
            kept = group["alpha"] if "alpha" in group else group["betas"][1] if "betas" in group else None
            share = 1.0 if kept is None else (1.0 - kept) / kept
            for parameter in group["params"]:
                state = net.optimizer_.state[parameter]
                if not state:
                    entries = {key: None, **others}
                    state.update({k: _start(value, parameter) for k, value in entries.items()})
                self.treat(state[key], share * parameter.grad.square())

    def treat(self, squares, added):
        self.steps.append(squares + added)


class HoldSquares(RecordSquares):
    """Before a step, the squares become those noted less what this step will add."""

    def treat(self, squares, added):
        squares.copy_(self.steps[self.position_] - added)
        self.position_ += 1


def _start(value, parameter):
    return torch.zeros_like(parameter) if value is None else torch.tensor(value)
