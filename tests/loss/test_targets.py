"""Targets that do not fit the outputs."""

from __future__ import annotations

import numpy as np
import pytest
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn

from sklearn_source.network import Network


@pytest.mark.parametrize(
    ("y", "match"),
    [
        ([0, 1, 3, 2], r"labels in 0\.\.2 .* got 3"),
        ([0, -1, 1, 2], r"labels in 0\.\.2 .* got -1"),
        ([0.0, 1.0, 2.0, 0.0], "integer labels"),
        ([[0], [1], [2], [0]], r"labels of shape \(n,\).*ravel"),
    ],
)
def test_labels_that_do_not_fit(make_net, y, match):
    network = Network.from_net(make_net(NeuralNetClassifier, nn.CrossEntropyLoss))
    rows = network.prepare(np.ones((4, 5)), np.array(y))
    x, labels = rows.batch(slice(None))
    with pytest.raises(ValueError, match=match):
        network.row_loss(network.forward(x), labels)
    with pytest.raises(ValueError, match=match):
        network.calibrate(rows)


def test_binary_labels_that_do_not_fit(make_net):
    network = Network.from_net(make_net(NeuralNetBinaryClassifier, nn.BCEWithLogitsLoss, n_out=1))
    x, y = network.prepare(np.ones((4, 5)), np.array([-1.0, 1, 1, -1])).batch(slice(None))
    with pytest.raises(ValueError, match="from 0 to 1"):
        network.row_loss(network.forward(x), y)


def test_missing_targets(make_net):
    network = Network.from_net(make_net())
    rows = network.prepare(np.ones((4, 5)))
    x, y = rows.batch(slice(None))
    assert y is None
    assert not rows.has_y
    with pytest.raises(ValueError, match="y is None"):
        network.row_loss(network.forward(x), y)
    with pytest.raises(ValueError, match="y is None"):
        network.calibrate(rows)
