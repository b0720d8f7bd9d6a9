"""What a net keeps outside its ``state_dict``: read while it trains, and set on a private copy."""

from __future__ import annotations

import torch
from skorch import NeuralNetRegressor
from torch import nn

from sklearn_source.network import outside_state, set_outside_state


class Counting(nn.Linear):
    def __init__(self):
        super().__init__(2, 1)
        self.n_calls, self.name = 0, "text"

    def forward(self, x):
        self.n_calls += 1
        return super().forward(x)


class Loss(nn.MSELoss):
    def __init__(self):
        super().__init__()
        self.scale, self.table = 1.0, torch.ones(3)
        self.register_buffer("mean", torch.zeros(2))


def make():
    net = NeuralNetRegressor(Counting, criterion=Loss, max_epochs=3, batch_size=2, train_split=None, verbose=0)
    return net.fit(torch.zeros(4, 2), torch.ones(4, 1))


def test_numbers_and_the_criterions_tensors_are_read():
    net = make()
    state = outside_state(net)
    assert (state["epochs"], state["batches"]) == (3, 2)
    values = state["values"]
    assert values["module_//n_calls"] == 6
    assert values["criterion_//scale"] == 1.0
    assert values["net//max_epochs"] == 3
    assert torch.equal(values["criterion_//mean"], torch.zeros(2))
    assert torch.equal(values["criterion_//table"], torch.ones(3))
    assert not any(key.endswith(("/name", "/training", "/weight")) for key in values)
    net.criterion_.mean += 1  # copies
    assert torch.equal(values["criterion_//mean"], torch.zeros(2))


def test_set_on_another_net():
    early, late = make(), make()
    state = outside_state(early)
    state["values"].update({"module_//n_calls": 2, "criterion_//scale": 0.5, "criterion_//mean": torch.ones(2)})
    state.update(epochs=2, batches=1)
    history = late.history
    set_outside_state(late, state, history)
    assert (late.module_.n_calls, late.criterion_.scale) == (2, 0.5)
    assert torch.equal(late.criterion_.mean, torch.ones(2))
    assert late.history[-1, "epoch"] == 2
    assert len(late.history[-1]["batches"]) == 1
    assert len(history) == 3  # the whole is left as it was
    assert len(history[1]["batches"]) == 2


def test_what_was_recorded_is_not_written_to():
    net = make()
    state = outside_state(net)
    set_outside_state(net, state, net.history)
    net.criterion_.mean += 1
    assert torch.equal(state["values"]["criterion_//mean"], torch.zeros(2))
