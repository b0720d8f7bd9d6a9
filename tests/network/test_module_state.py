"""Values of a module's parameters and buffers, and the module's signature."""

from __future__ import annotations

import pytest
import torch
from skorch import NeuralNetRegressor
from torch import nn

from sklearn_source.network import Network


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 4, bias=False)
        self.b.weight = self.a.weight

    def forward(self, X):
        return self.b(self.a(X).tanh())[:, :1]


def test_load_swaps_without_copying(net):
    network = Network.from_net(net)
    values = {k: torch.randn_like(v) for k, v in network.parameters().items()}
    network.load(values)
    assert all(network.parameters()[k].data_ptr() == v.data_ptr() for k, v in values.items())
    network.load({k: v.double() for k, v in values.items()})
    assert {p.dtype for p in network.parameters().values()} == {torch.float32}
    assert all(p.requires_grad for p in network.module.parameters())


@pytest.mark.parametrize("what", ["parameters", "buffers"])
def test_load_refuses_what_is_not_its_own(net, what):
    network = Network.from_net(net)
    good = {"parameters": network.parameters(), "buffers": network.buffers()}
    name = next(iter(good[what]))
    before = {k: v.clone() for k, v in network.module.state_dict().items()}
    missing = {k: v for k, v in good[what].items() if k != name}
    shape = {**good[what], name: torch.zeros(3, 3, 3)}
    zeros = {k: torch.zeros_like(v) for k, v in good["parameters"].items()}
    for wrong, match in (
        (missing, "missing"),
        ({**good[what], "foreign": torch.zeros(1)}, "foreign"),
        (shape, "shape"),
        ([1], "mapping"),
    ):
        with pytest.raises(ValueError, match=match):
            network.load(**{"parameters": zeros, "buffers": good["buffers"], what: wrong})
    after = network.module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_tied_parameters_are_loaded_once():
    network = Network.from_net(NeuralNetRegressor(Tied).initialize())
    network.load({"a.weight": torch.eye(4), "a.bias": torch.zeros(4)})
    torch.testing.assert_close(network.module.b.weight.data, torch.eye(4))


class Steep(nn.Module):
    """What a signature has to see: an attribute that nothing else shows, and a function that is called."""

    def __init__(self, steepness=1.0):
        super().__init__()
        self.out, self.steepness = nn.Linear(3, 1), steepness

    def forward(self, x):
        return _bend(self.steepness * self.out(x))


def _bend(x):
    return x.tanh()


def test_the_signature_sees_attributes_and_what_the_module_calls(monkeypatch):
    def signature(**options):
        return Network.from_net(NeuralNetRegressor(Steep, **options).initialize()).signature()

    one = signature()
    assert signature() == one
    assert signature(module__steepness=2.0) != one
    monkeypatch.setitem(globals(), "_bend", torch.relu)
    assert signature() != one
