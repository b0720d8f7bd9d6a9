"""Clones of a net: trained from a seed, alone, and from fresh weights."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_source.network import refuse_module_instance, seeded_clone
from tests._nets import make_net


def drawn():
    return [random.random(), np.random.random(), torch.rand(1).item()]


def test_a_clone_starts_from_the_seed_and_leaves_the_generators_alone():
    net = make_net(module__n_features=3)
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    numbers = []
    for seed in (1, 1, 2):
        with torch.no_grad(), seeded_clone(net, seed) as fresh:
            assert torch.is_grad_enabled()
            assert fresh is not net
            numbers.append(drawn())
    assert numbers[0] == numbers[1] != numbers[2]
    assert random.getstate() == states[0]
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])
    assert torch.equal(torch.get_rng_state(), states[2])
    assert not hasattr(net, "module_")


def test_threads_take_turns():
    net, order = make_net(module__n_features=3), []

    def draw():
        with seeded_clone(net, 0):
            order.append(torch.rand(1).item())

    with seeded_clone(net, 0):
        thread = threading.Thread(target=draw)
        thread.start()
        thread.join(0.2)
        assert not order
        first = torch.rand(1).item()
    thread.join()
    assert order == [first]


def test_module_instances_are_refused():
    refuse_module_instance(make_net(), "")
    with pytest.raises(ValueError, match=r"holds a module instance, which is bad: build .*\(module=MLP.*\), or not$"):
        refuse_module_instance(make_net(module=nn.Linear(3, 1)), ", which is bad", ", or not")
