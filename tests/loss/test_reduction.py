"""Whether rows are coupled, and how elements or single rows make up the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch import NeuralNetBinaryClassifier, NeuralNetRegressor
from torch import nn

from sklearn_source.network import Network

N, C, T = 12, 3, 4


class Contrastive(nn.Module):
    reduction = "mean"

    def forward(self, output, y):
        similarity = output @ output.T
        loss = -similarity.log_softmax(1).diagonal() + 0 * y.sum()
        return loss if self.reduction == "none" else loss.mean()


class BatchMax(nn.Module):
    def forward(self, output, y):
        rows = ((output - y) ** 2).mean(1)
        return (rows / rows.max().detach()).mean()


class BatchMaxReduction(nn.Module):
    def __init__(self):
        super().__init__()
        self.reduction = "mean"

    def forward(self, output, y):
        rows = ((output - y) ** 2).mean(1)
        rows = rows / rows.max()
        return rows if self.reduction == "none" else rows.mean()


class Balanced(nn.Module):
    """Couples rows by their targets only."""

    def forward(self, output, y):
        return (((output - y) ** 2).mean(1) / y.var()).mean()


@pytest.mark.parametrize("n", [1, 2, 9])
@pytest.mark.parametrize("criterion", [Contrastive, BatchMax, BatchMaxReduction, Balanced])
def test_coupled_rows_are_refused(make_net, rng, criterion, n):
    network = Network.from_net(make_net(criterion=criterion))
    rows = network.prepare(rng.normal(size=(n, 5)), rng.normal(size=(n, C)))
    x, y = rows.batch(slice(None))
    for _ in range(2):
        with pytest.raises(ValueError, match="couples rows"):
            network.row_loss(network.forward(x), y)
    with pytest.raises(ValueError, match="couples rows"):
        network.calibrate(rows)


@pytest.mark.parametrize("criterion", [nn.MSELoss, nn.L1Loss, nn.HuberLoss, nn.SmoothL1Loss, nn.BCEWithLogitsLoss])
@pytest.mark.parametrize("n", [1, 2, 8])
@pytest.mark.filterwarnings("error")
def test_flat_targets_for_column_outputs_are_refused(make_net, rng, criterion, n):
    network = Network.from_net(make_net(NeuralNetRegressor, criterion, n_out=1))
    x, y = network.prepare(rng.normal(size=(n, 5)), rng.random(n)).batch(slice(None))
    with pytest.raises(ValueError, match=r"Reshape y with y.reshape\(-1, 1\), exactly as in training"):
        network.row_loss(network.forward(x), y)
    network.row_loss(network.forward(x), y.reshape(-1, 1))
    # A form found good does not excuse a later batch of another form.
    with pytest.raises(ValueError, match="couples rows"):
        network.row_loss(network.forward(x), y)


def test_column_targets_for_a_binary_classifier_are_refused(make_net, rng):
    network = Network.from_net(make_net(NeuralNetBinaryClassifier, nn.BCEWithLogitsLoss, n_out=1))
    x, y = network.prepare(rng.normal(size=(4, 5)), np.ones((4, 1))).batch(slice(None))
    with pytest.raises(ValueError, match=r"y.reshape\(-1\)"):
        network.row_loss(network.forward(x), y)


class Counting(nn.MSELoss):
    calls = []

    def forward(self, output, y):
        self.calls.append(len(output))
        return super().forward(output, y)


def test_the_coupling_check_runs_once_on_few_rows(make_net, rng):
    network = Network.from_net(make_net(criterion=Counting))
    rows = network.prepare(rng.normal(size=(50, 5)), rng.normal(size=(50, C)))
    x, y = rows.batch(slice(None))
    output = network.forward(x)
    Counting.calls.clear()
    network.row_loss(output, y)
    assert Counting.calls == [4] * 6 + [50]
    Counting.calls.clear()
    network.row_loss(output[:7], y[:7])
    assert Counting.calls == [7]


def test_a_diverged_network_is_not_called_coupled(make_net):
    net = make_net()
    net.module_[0].weight.data.fill_(torch.nan)
    network = Network.from_net(net)
    with pytest.raises(ValueError, match="not finite"):
        network.calibrate(network.prepare(np.ones((4, 5)), np.ones((4, 3))))
