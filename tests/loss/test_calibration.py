"""What the training rows fix in the loss of a row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklearn_source.network import Network

weight = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)


def test_class_weights_divide_by_the_mean_weight_of_the_training_rows(make_net):
    net = make_net(NeuralNetClassifier, nn.CrossEntropyLoss, criterion__weight=weight)
    network, y = Network.from_net(net), np.array([0, 0, 1, 2, 2, 2])
    rows = network.prepare(np.eye(6, 5), y)
    x, labels = rows.batch([0, 3])
    output = network.forward(x)
    with pytest.raises(ValueError, match="calibrate"):
        network.row_loss(output, labels)
    network.calibrate(rows, indices=[0, 1, 2, 3])
    got = network.row_loss(output, labels)
    expected = -output.log_softmax(1)[[0, 1], [0, 2]] * torch.tensor([0.5, 3.0]) / ((0.5 + 0.5 + 1 + 3) / 4)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    ("batch_size", "drop_last", "expected"), [(5, False, 4.0), (5, True, 5.0), (-1, False, 12.0), (64, False, 12.0)]
)
def test_a_sum_is_scaled_by_the_mean_batch_size(make_net, rng, batch_size, drop_last, expected):
    kwargs = {"iterator_train__drop_last": drop_last, "batch_size": batch_size}
    net = make_net(NeuralNetRegressor, criterion__reduction="sum", n_out=1, **kwargs)
    network = Network.from_net(net)
    rows = network.prepare(rng.normal(size=(12, 5)), rng.normal(size=(12, 1)))
    network.calibrate(rows)
    x, y = rows.batch([2])
    output = network.forward(x)
    torch.testing.assert_close(network.row_loss(output, y), expected * (output - y)[:, 0] ** 2)


def test_sum_over_everything_needs_the_number_of_rows(make_net, rng):
    net = make_net(NeuralNetRegressor, criterion__reduction="sum", batch_size=-1)
    network = Network.from_net(net)
    x, y = network.prepare(rng.normal(size=(4, 5)), rng.normal(size=(4, 3))).batch(slice(None))
    with pytest.raises(ValueError, match="number of training rows: call calibrate"):
        network.row_loss(network.forward(x), y)


def test_late_labels_are_found_by_calibrate(make_net):
    network = Network.from_net(make_net(NeuralNetClassifier, nn.CrossEntropyLoss))
    y = np.zeros(3000, dtype=np.int32)
    y[2500] = 7
    with pytest.raises(ValueError, match="got 7"):
        network.calibrate(network.prepare(np.ones((3000, 5)), y))


def test_nothing_but_ignored_labels(make_net):
    network = Network.from_net(make_net(NeuralNetClassifier, nn.CrossEntropyLoss))
    with pytest.raises(ValueError, match="ignored"):
        network.calibrate(network.prepare(np.ones((4, 5)), np.full(4, -100)))
