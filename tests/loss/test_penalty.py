"""The part of a loss that reads parameters alone: found, with its curvature, and told from what reads rows too."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skorch import NeuralNetRegressor
from torch import nn

from sklearn_source import InfluenceFunctions, TracIn, TrajectoryRecorder
from sklearn_source.network import Network
from tests._methods import joint


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 1)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        self.hidden = torch.tanh(self.first(x))
        return self.second(self.drop(self.hidden))


def net_of(penalty, dtype=torch.float64, n=9, **options):
    """A net whose ``get_loss`` adds ``penalty(module, X)``, trained for a few steps, and its rows."""

    class Net(NeuralNetRegressor):
        def get_loss(self, y_pred, y_true, X=None, *args, **kwargs):
            return super().get_loss(y_pred, y_true, X, *args, **kwargs) + penalty(self.module_, X)

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    X, y = (rng.normal(size=(n, k)).astype(str(dtype).split(".")[1]) for k in (3, 1))
    settings = {"train_split": None, "verbose": 0, "max_epochs": 2, "callbacks": [TrajectoryRecorder()], **options}
    return Net(Two().to(dtype), **settings).fit(X, y), X, y


def find(net, X, y):
    network = Network.from_net(net)
    rows, index = network.prepare(X, y), np.arange(len(X))
    network.calibrate(rows, index)
    return network.penalty(rows, index), network


def l2(module, X):
    return 0.3 * sum(p.pow(2).sum() for p in module.parameters())


def on_weights(module, X):
    return 0.3 * module.first.weight.pow(2).sum() + 0.1 * (module.second.bias - 1).pow(2).sum()


def l1(module, X):
    return 0.01 * sum(p.abs().sum() for p in module.parameters())


def nothing(module, X):
    return 0.0


def constant(module, X):
    return sum(p.detach().pow(2).sum() for p in module.parameters())


ALL = ("first.weight", "first.bias", "second.weight", "second.bias")
CURVATURES = {
    l2: dict.fromkeys(ALL, 0.6),
    on_weights: {**dict.fromkeys(ALL, 0.0), "first.weight": 0.6, "second.bias": 0.2},
    l1: dict.fromkeys(ALL, 0.0),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("penalty", CURVATURES)
@pytest.mark.parametrize("n", [1, 2, 9])
def test_curvature_and_gradient(penalty, dtype, n):
    net, X, y = net_of(penalty, dtype, n)
    before = torch.get_rng_state()
    (found, share), network = find(net, X, y)
    assert torch.equal(before, torch.get_rng_state())
    assert share == 0
    assert found.missed == 0
    assert found.curvature == pytest.approx(CURVATURES[penalty], rel=1e-4)
    parameters = dict(network.module.named_parameters())
    expected = torch.autograd.grad(penalty(network.module, None), list(parameters.values()), allow_unused=True)
    for (name, p), e in zip(parameters.items(), expected):
        torch.testing.assert_close(found.gradient[name], torch.zeros_like(p) if e is None else e, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("penalty", [nothing, constant])
def test_where_there_is_none(penalty):
    assert find(*net_of(penalty))[0] == (None, 0.0)


def test_the_curvature_is_that_at_the_weights_loaded():
    net, X, y = net_of(lambda module, X: sum(p.pow(4).sum() for p in module.second.bias[None]))
    network = find(net, X, y)[1]
    rows = network.prepare(X, y)
    values = network.parameters()
    for bias in (0.5, 2.0):
        network.load({**values, "second.bias": torch.tensor([bias], dtype=torch.float64)})
        found, _ = network.penalty(rows, np.arange(len(X)))
        assert found.curvature["second.bias"] == pytest.approx(12 * bias**2, rel=1e-4)


def group_lasso(module, X):
    return 0.1 * sum(p.norm() for p in module.parameters())


def orthogonal(module, X):
    w = module.first.weight
    return 0.1 * (w.T @ w - torch.eye(3, dtype=w.dtype)).pow(2).sum()


def elementwise(module, X):
    w = module.first.weight
    return (torch.arange(w.numel(), dtype=w.dtype).reshape(w.shape) * w.pow(2)).sum()


@pytest.mark.parametrize("penalty", [group_lasso, orthogonal, elementwise])
def test_another_form_is_said_and_its_mean_stands_for_it(penalty):
    net, X, y = net_of(penalty)
    (found, _), network = find(net, X, y)
    assert 0.1 < found.missed < 1.5
    weight = network.module.first.weight
    hessian = torch.autograd.functional.hessian(
        lambda flat: penalty(_with(network.module, "first.weight", flat.reshape(weight.shape)), None),
        weight.detach().flatten(),
    )
    assert found.curvature["first.weight"] == pytest.approx(float(hessian.diagonal().mean()), rel=0.5)
    with pytest.warns(UserWarning, match="penalty on the parameters whose curvature is not one number per"):
        InfluenceFunctions().fit(net, X, y)


def _with(module, name, value):
    """An object that looks like the module with another tensor for one of its parameters."""
    first = type("First", (), {"weight": value, "bias": module.first.bias})()
    others = [value, *(p for n, p in module.named_parameters() if n != name)]
    return type("Module", (), {"first": first, "second": module.second, "parameters": lambda self: others})()


def activations(module, X):
    return 5 * module.hidden.pow(2).mean()


def second_pass(module, X):
    return 5 * F.mse_loss(module(X + 0.5), module(X))


@pytest.mark.parametrize("penalty", [activations, second_pass])
@pytest.mark.parametrize("factor", [1.0, 1e-2])
def test_a_part_that_reads_rows_is_said_or_refused(penalty, factor):
    net, X, y = net_of(lambda module, X: factor * penalty(module, X))
    (found, share), _ = find(net, X, y)
    assert found is None
    assert share > 0
    match = "a part of the loss reads parameters and rows"
    if share > 0.1:
        with pytest.raises(ValueError, match=match):
            TracIn().fit(net, X, y)
    else:
        with pytest.warns(UserWarning, match=match):
            TracIn().fit(net, X, y)
    assert (share > 0.1) == (factor == 1.0)


def test_influence_functions_have_the_penalty_in_their_hessian():
    """Against the closed form of ridge regression whose penalty is in the loss."""
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(20, 3)), rng.normal(size=(20, 1))
    X -= X.mean(0)

    class Ridge(NeuralNetRegressor):
        def get_loss(self, y_pred, y_true, *args, **kwargs):
            return super().get_loss(y_pred, y_true, *args, **kwargs) + 0.25 * self.module_.weight.pow(2).sum()

    torch.manual_seed(0)
    net = Ridge(
        nn.Linear(3, 1).double(), lr=0.2, max_epochs=200, batch_size=-1, train_split=None, verbose=0, callbacks=None
    ).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        scores = InfluenceFunctions(damping=0.0).fit(net, X, y).transform(X[:4])
        coupled = InfluenceFunctions(damping=0.0, curvature=joint()).fit(net, X, y).transform(X[:4])
    Z = np.c_[X, np.ones(20)]
    hessian = 2 * Z.T @ Z / 20 + np.diag([0.5, 0.5, 0.5, 0.0])
    residual = 2 * (net.predict(X) - y)
    expected = -Z[:4] @ np.linalg.solve(hessian, (Z * residual).T) / 20
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(coupled, expected, rtol=1e-4, atol=1e-6)


def test_the_loss_of_a_row_changes_by_its_own_alone():
    """What ground truth measures at other weights: the penalty there is no row's."""
    net, X, y = net_of(l2)
    network = find(net, X, y)[1]
    x, t = network.prepare(X, y).batch(slice(None))

    def both():
        output = network.forward(x)
        return network.row_loss.own_losses(output, t, x), ((output - t) ** 2)[:, 0]

    before = both()
    network.load({name: value + 0.3 for name, value in network.parameters().items()})
    after = both()
    torch.testing.assert_close(after[0] - before[0], after[1] - before[1])


def test_weights_held_at_a_kink_are_said():
    net, X, y = net_of(lambda module, X: 0.5 * module.first.weight.abs().sum(), max_epochs=60)
    with pytest.warns(UserWarning, match=r"holds \d+ of 21 parameters at a kink"):
        TracIn().fit(net, X, y)
