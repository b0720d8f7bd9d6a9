"""Compiled modules and embeddings that write to their weights, in the private copy of a net."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_source.network import Network
from sklearn_source.utils._compat_torch import is_compiled

X = np.random.default_rng(0).integers(7, size=(12, 4))
Y = np.arange(12) % 3


class Bag(nn.Module):
    def __init__(self, kind=nn.Embedding, **options):
        super().__init__()
        self.embed, self.head = kind(7, 4, **options), nn.Linear(4, 3)

    def forward(self, x):
        found = self.embed(x)
        return self.head(found.mean(1) if found.dim() == 3 else found)


def made(kind=nn.Embedding, **options):
    torch.manual_seed(0)
    net = NeuralNetClassifier(Bag(kind, **options).double(), criterion=nn.CrossEntropyLoss, train_split=None, verbose=0)
    return net.initialize()


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
@pytest.mark.parametrize("norm_type", [2.0, 1.0])
def test_renormalised_embeddings_give_the_same_values_and_gradients_and_keep_their_weights(kind, norm_type):
    net = made(kind, max_norm=1.2, norm_type=norm_type)
    before = net.module_.embed.weight.detach().clone()
    network = pickle.loads(pickle.dumps(Network.from_net(net)))
    x = torch.as_tensor(X)
    for _ in range(2):
        output = network.forward(x)
        output.sin().sum().backward()
    assert torch.equal(network.module.embed.weight, before)
    assert torch.equal(net.module_.embed.weight, before)
    net.module_.eval()
    expected = net.module_(x)  # torch's own, which shortens the lines
    assert not torch.equal(net.module_.embed.weight, before)
    expected.sin().sum().backward()
    torch.testing.assert_close(output, expected, rtol=1e-6, atol=1e-6)  # torch adds 1e-7 to the norm it divides by
    torch.testing.assert_close(
        network.module.embed.weight.grad / 2, net.module_.embed.weight.grad, rtol=1e-6, atol=1e-6
    )


def test_the_most_that_a_line_may_be_long_is_part_of_the_signature():
    assert Network.from_net(made(max_norm=1.0)).signature() != Network.from_net(made(max_norm=2.0)).signature()


def test_an_embedding_of_its_own_kind_that_may_write_is_refused():
    class Own(nn.Embedding):
        def forward(self, x):
            return 2 * super().forward(x)

    with pytest.raises(ValueError, match="'embed' is a Own with max_norm=1.0"):
        Network.from_net(made(Own, max_norm=1.0))
    Network.from_net(made(Own))


def test_sparse_gradients_are_dense_in_the_copy():
    net = made(sparse=True)
    network = Network.from_net(net)
    network.forward(torch.as_tensor(X)).sum().backward()
    assert not network.module.embed.weight.grad.is_sparse
    assert net.module_.embed.sparse


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.compile(Bag(), backend="eager")

    def forward(self, x):
        return self.inner(x)


@pytest.mark.parametrize("way", ["skorch", "by hand", "inside", "in place"])
def test_compiled_modules_are_copied_uncompiled_under_their_names(way):
    torch.manual_seed(0)
    options = {"criterion": nn.CrossEntropyLoss, "train_split": None, "verbose": 0}
    if way == "skorch":
        net = NeuralNetClassifier(Bag, compile=True, compile__backend="eager", **options)
    elif way == "by hand":
        net = NeuralNetClassifier(torch.compile(Bag(), backend="eager"), **options)
    elif way == "inside":
        net = NeuralNetClassifier(Nested, **options)
    else:
        module = Bag()
        module.compile(backend="eager")
        net = NeuralNetClassifier(module, **options)
    net.initialize()
    network = pickle.loads(pickle.dumps(Network.from_net(net)))
    assert not any(is_compiled(module) for module in network.module.modules())
    assert network.predictive.name == "categorical"
    assert [name for name, _ in network.module.named_parameters()] == [n for n, _ in net.module_.named_parameters()]
    assert any(is_compiled(module) for module in net.module_.modules()) == (way != "in place")
    x = torch.as_tensor(X)
    with torch.no_grad():
        torch.testing.assert_close(network.forward(x), net.module_.eval()(x))
    other = {name: p + 1 for name, p in network.parameters().items()}
    network.load(other)
    assert torch.equal(next(iter(network.parameters().values())), next(iter(other.values())))
