"""A row's loss along its measurement, against closed forms and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklearn_source.loss import along_measurement, resolve_measurement
from sklearn_source.network import Network


def classifier(*ends):
    return nn.Sequential(nn.Linear(3, 4, dtype=torch.float64), *ends)


def along(kind, y, measurement="auto", output=None, module=None, **options):
    """Outputs of a net on made-up rows, and its loss along the measurement."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(len(y), 3))
    module = module or nn.Linear(3, 1, dtype=torch.float64)
    net = kind(module, train_split=None, verbose=0, max_epochs=1, **options).fit(X, y)
    network = Network.from_net(net)
    rows = network.prepare(X, y)
    network.calibrate(rows)
    x, target = rows.batch(slice(0, len(y)))
    out = network.forward(x).detach()
    measure = resolve_measurement(measurement, network, output)
    return out, target, along_measurement(network.row_loss, measure, out, target, x)


LABELS = np.random.default_rng(1).integers(4, size=9)


@pytest.mark.parametrize(
    ("kind", "criterion", "end", "probabilities"),
    [
        (NeuralNetClassifier, nn.CrossEntropyLoss, nn.Identity(), lambda out: out.softmax(1)),
        (NeuralNetClassifier, nn.NLLLoss, nn.Softmax(1), lambda out: out),
        (NeuralNet, nn.NLLLoss, nn.LogSoftmax(1), torch.exp),
    ],
    ids=["logits", "probabilities", "log-probabilities"],
)
def test_own_class_under_cross_entropy(kind, criterion, end, probabilities):
    """Outputs that sum to one cannot move every way: what counts is what the logits behind them can do."""
    out, y, found = along(kind, LABELS, "log_odds", module=classifier(end), criterion=criterion)
    p = probabilities(out)[torch.arange(9), y]
    torch.testing.assert_close(found.values, torch.logit(p))
    torch.testing.assert_close(found.slope, p - 1)
    torch.testing.assert_close(found.curvature, p * (1 - p))


def test_yes_and_no():
    y = np.array([0.0, 1.0, 1.0, 0.0])
    out, y, found = along(NeuralNetBinaryClassifier, y)
    p = torch.where(y == 1, out.flatten().sigmoid(), 1 - out.flatten().sigmoid())
    torch.testing.assert_close(found.slope, p - 1)
    torch.testing.assert_close(found.curvature, p * (1 - p))


def test_squared_error_and_one_output_of_several():
    y = np.random.default_rng(2).normal(size=(5, 1))
    out, y, found = along(NeuralNetRegressor, y)
    torch.testing.assert_close(found.slope, 2 * (out - y)[:, 0])
    torch.testing.assert_close(found.curvature, torch.full((5,), 2.0).double())
    y = np.random.default_rng(2).normal(size=(5, 3))
    out, y, found = along(NeuralNetRegressor, y, output=2, module=nn.Linear(3, 3, dtype=torch.float64))
    torch.testing.assert_close(found.slope, 2 / 3 * (out - y)[:, 2])
    torch.testing.assert_close(found.curvature, torch.full((5,), 2 / 3).double())


def test_loss_itself_and_losses_without_curvature():
    y = np.random.default_rng(2).normal(size=(5, 1))
    _, _, found = along(NeuralNetRegressor, y, "neg_loss")
    torch.testing.assert_close(found.slope, -torch.ones(5).double())
    torch.testing.assert_close(found.curvature, torch.zeros(5).double())
    out, y, found = along(NeuralNetRegressor, y, criterion=nn.L1Loss)
    torch.testing.assert_close(found.slope, (out - y)[:, 0].sign())
    assert not found.curvature.any()


def test_a_measurement_that_stands_still():
    y = np.random.default_rng(2).normal(size=(5, 1))
    _, _, found = along(NeuralNetRegressor, y, lambda output, target: 1.0 + 0.0 * output[:, 0])
    assert not found.slope.any()
    assert not found.curvature.any()


def test_tokens_are_weighed_by_how_much_they_move_the_measurement():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 4 * 5, dtype=torch.float64)

        def forward(self, X):
            return self.linear(X).view(len(X), 4, 5)

    y = np.random.default_rng(3).integers(4, size=(6, 5))
    out, y, found = along(NeuralNet, y, "log_odds", module=Tokens(), criterion=nn.CrossEntropyLoss)
    p = out.softmax(1).gather(1, y[:, None])[:, 0]  # (rows, tokens)
    others = out.scatter(1, y[:, None], -torch.inf).softmax(1)
    weights = 1 + others.square().sum(1)  # squared gradients of the log-odds
    torch.testing.assert_close(found.slope, ((p - 1) * weights).sum(1) / weights.sum(1))


def test_curvature_is_the_slope_s_derivative():
    """For a loss that is no function of the measurement: along the gradient, by finite differences."""
    y = np.random.default_rng(4).integers(4, size=6)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(6, 3))
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        nn.Linear(3, 4, dtype=torch.float64), criterion=nn.CrossEntropyLoss, train_split=None, verbose=0, max_epochs=1
    ).fit(X, y)
    network = Network.from_net(net)
    rows = network.prepare(X, y)
    network.calibrate(rows)
    x, target = rows.batch(slice(0, 6))
    measure = resolve_measurement(lambda output, t: output[:, 0] * output[:, 1], network)

    def at(out):
        return along_measurement(network.row_loss, measure, out, target, x)

    out = network.forward(x).detach()
    here = at(out)
    step = 1e-5 * here.cotangent / here.cotangent.square().sum(1, keepdim=True)
    expected = (at(out + step).slope - at(out - step).slope) / 2e-5
    torch.testing.assert_close(here.curvature, expected, rtol=1e-6, atol=1e-8)
