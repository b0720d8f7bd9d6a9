"""Similarity of representations on networks whose layers have their rows elsewhere than in front."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from skorch import NeuralNet, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklearn_source import RepresentationSimilarity
from sklearn_source.network import Network

WORDS, STEPS = 9, 5


class TimeFirst(nn.Module):
    """The default of nn.GRU."""

    def __init__(self):
        super().__init__()
        self.emb, self.rnn, self.out = nn.Embedding(WORDS, 4), nn.GRU(4, 6), nn.Linear(6, 3)

    def hidden(self, X):
        return self.rnn(self.emb(X.T))[0].transpose(0, 1)

    def forward(self, X):
        return self.out(self.rnn(self.emb(X.T))[0]).permute(1, 2, 0)


class Flattened(TimeFirst):
    """A decoder on (B * T, H)."""

    def forward(self, X):
        hidden = self.hidden(X)
        return self.out(hidden.reshape(-1, 6)).reshape(*X.shape, 3).permute(0, 2, 1)


class FlattenedTimeFirst(TimeFirst):
    """A decoder on (T * B, H)."""

    def forward(self, X):
        hidden = self.rnn(self.emb(X.T))[0]
        return self.out(hidden.reshape(-1, 6)).reshape(STEPS, len(X), 3).permute(1, 2, 0)


class LooseOutput(TimeFirst):
    """Puts out (B * T, C), which the criterion takes as it is."""

    def forward(self, X):
        return self.out(self.hidden(X).reshape(-1, 6))


class ByKeyword(TimeFirst):
    def forward(self, X):
        return self.out(input=self.hidden(X)).permute(0, 2, 1)


class Ids(nn.Module):
    """Nothing but a table: its input are ids."""

    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(WORDS, 3)

    def hidden(self, X):
        return self.emb(X)

    def forward(self, X):
        return self.emb(X).permute(0, 2, 1)


class Woven(TimeFirst):
    """Rows interleaved in a way of its own."""

    def hidden(self, X):
        return super().hidden(X)

    def forward(self, X):
        hidden = super().hidden(X).reshape(-1, 6)
        order = torch.argsort(torch.arange(len(hidden)) % 3, stable=True)
        out = self.out(hidden[order])[torch.argsort(order)]
        return out.reshape(*X.shape, 3).permute(0, 2, 1)


class FlatCrossEntropy(nn.CrossEntropyLoss):
    def forward(self, input, target):
        return super().forward(input, target.flatten())


def tokens(n):
    rng = np.random.default_rng(0)
    return rng.integers(0, WORDS, (n, STEPS)), rng.integers(0, 3, (n, STEPS))


def trained(module, X, y, criterion=nn.CrossEntropyLoss):
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        module, criterion=criterion, classes=[0, 1, 2], train_split=None, verbose=0, max_epochs=2, lr=0.5
    )
    return net.fit(X, y)


def cosines(module, queries, X):
    with torch.no_grad():
        q, h = (nn.functional.normalize(module.hidden(torch.as_tensor(x)).flatten(1)) for x in (queries, X))
    return (q @ h.T).numpy()


# As many rows as time steps, as probes, more, fewer; a single query too.
@pytest.mark.parametrize("n, n_query", [(12, 4), (12, 1), (5, 5), (STEPS * 2, STEPS), (3, 2), (1, 3)])
@pytest.mark.parametrize("module", [TimeFirst, Flattened, FlattenedTimeFirst, ByKeyword, Ids])
def test_rows_are_found_wherever_they_are(module, n, n_query):
    X, y = tokens(max(n, n_query))
    net = trained(module, X[:n], y[:n])
    est = RepresentationSimilarity().fit(net, X[:n], y[:n])
    np.testing.assert_allclose(est.transform(X[:n_query]), cosines(net.module_, X[:n_query], X[:n]), atol=1e-5)


def test_equal_rows_do_not_hide_where_they_are():
    X, y = tokens(12)
    X[:6] = X[0]
    net = trained(TimeFirst, X, y)
    found = RepresentationSimilarity(batch_size=STEPS).fit(net, X, y).transform(X)
    np.testing.assert_allclose(found, cosines(net.module_, X, X), atol=1e-5)


def test_rows_that_cannot_be_told_apart_are_passed_alone():
    X, y = tokens(12)
    net = trained(Woven, X, y)
    with pytest.warns(UserWarning, match="'out' belong to which row cannot be told.*each is passed alone"):
        est = RepresentationSimilarity(metric="dot").fit(net, X, y)
    expected = []
    for x in X:  # a row alone is woven too: its positions in the order of the layer
        order = np.argsort(np.arange(STEPS) % 3, kind="stable")
        expected.append(net.module_.hidden(torch.as_tensor(x[None])).detach().numpy()[0][order].ravel())
    np.testing.assert_allclose(est.transform(X[:4]), np.array(expected[:4]) @ np.array(expected).T, rtol=1e-4)


def test_a_recurrent_layer_by_name():
    X, y = tokens(8)
    net = trained(TimeFirst, X, y)
    found = RepresentationSimilarity(layer="rnn").fit(net, X, y).transform(X[:3])
    np.testing.assert_allclose(found, cosines(net.module_, X[:3], X), atol=1e-5)


def test_the_loss_and_targets_are_not_looked_at():
    X, y = tokens(10)
    loose = trained(LooseOutput, X, y, FlatCrossEntropy)
    np.testing.assert_allclose(
        RepresentationSimilarity().fit(loose, X, y).transform(X[:2]), cosines(loose.module_, X[:2], X), atol=1e-5
    )

    class Coupled(nn.MSELoss):
        def forward(self, input, target):
            return (input[:, None] - input[None]).square().mean() + super().forward(input, target)

    rng = np.random.default_rng(0)
    table = rng.normal(size=(20, 3)).astype(np.float32)
    net = NeuralNetRegressor(
        nn.Linear, criterion=Coupled, module__in_features=3, module__out_features=1, train_split=None, verbose=0
    )
    net.fit(table, table[:, :1])
    expected = table[:4] @ table.T
    est = RepresentationSimilarity(metric="dot")
    np.testing.assert_allclose(est.fit(net, table, table[:, :1]).transform(table[:4]), expected, rtol=1e-4, atol=1e-5)

    class Autoencoder(NeuralNet):
        def get_loss(self, y_pred, y_true, X=None, training=False):
            return (y_pred - X).square().mean()

    net = Autoencoder(nn.Linear, nn.MSELoss, module__in_features=3, module__out_features=3, verbose=0, train_split=None)
    est.fit(net.fit(table), table)
    np.testing.assert_allclose(est.transform(table[:4]), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(est.fit_transform(table, net=net), table @ table.T, rtol=1e-4, atol=1e-4)
    assert est.self_influence().shape == (20,)


def test_what_is_no_representation_is_refused():
    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.best, self.out = nn.Identity(), nn.Linear(3, 1)

        def forward(self, X):
            self.best(X.argmax(1))
            return self.out(X)

    class Random(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(3, 1)

        def forward(self, X):
            return self.out(X + torch.randn_like(X))

    table = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    for module, layer, message in (
        (Counted, "best", "one tensor of floating-point"),
        (Random, None, "from call to call"),
    ):
        net = NeuralNetRegressor(module, verbose=0, train_split=None).fit(table, table[:, :1])
        with pytest.raises(ValueError, match=message):
            RepresentationSimilarity(layer=layer).fit(net, table, table[:, :1])


def test_queries_of_another_length_are_refused():
    X, y = tokens(10)
    est = RepresentationSimilarity().fit(trained(TimeFirst, X, y), X, y)
    with pytest.raises(ValueError, match="activations of one size per row.*got 30 and 18"):
        est.transform(torch.utils.data.TensorDataset(torch.as_tensor(X[:, :3])))


def test_the_private_network_is_left_without_hooks():
    X, y = tokens(6)
    net = trained(TimeFirst, X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        est = RepresentationSimilarity().fit(net, X, y)
    est.transform(X)
    assert isinstance(est._network, Network)
    assert not any(m._forward_hooks for m in [*net.module_.modules(), *est._network.module.modules()])
