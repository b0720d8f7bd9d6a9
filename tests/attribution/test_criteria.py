"""Criteria as people write them: with a mode of their own, working in place, of several outputs, of two classes."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetRegressor
from torch import nn

from sklearn_source import InfluenceFunctions, RepresentationSimilarity, SourceAttribution, TracIn, TrajectoryRecorder

METHODS = [SourceAttribution, TracIn, InfluenceFunctions]


def fitted(cls, make, X, y, **options):
    torch.manual_seed(0)
    settings = {"train_split": None, "verbose": 0, "max_epochs": 3, "batch_size": 8, "lr": 0.1, **options}
    return cls(make(), callbacks=[TrajectoryRecorder(n_checkpoints=3)], **settings).fit(X, y)


def rows(n=24, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 5)).astype("float32")
    return X, (X[:, :1] - X[:, 1:2] ** 2).astype("float32")


class WarmTraining(nn.Module):
    """Another loss in training than in evaluation."""

    def forward(self, y_pred, y_true):
        factor = 3.0 if self.training else 0.5
        return factor * (y_pred - y_true).pow(2).mean()


class Thrice(nn.Module):
    def forward(self, y_pred, y_true):
        return 3.0 * (y_pred - y_true).pow(2).mean()


@pytest.mark.parametrize("method", METHODS)
def test_a_criterion_is_asked_in_the_mode_of_training(method):
    X, y = rows()
    scores = []
    for criterion in (WarmTraining, Thrice):
        net = fitted(NeuralNetRegressor, lambda: nn.Linear(5, 1), X, y, criterion=criterion, lr=0.01)
        net.criterion_.train(False)
        scores.append(method().fit(net, X, y).transform(X[:3]))
        assert not net.criterion_.training
    np.testing.assert_array_equal(*scores)


class InPlaceSqueeze(nn.Module):
    def forward(self, y_pred, y_true):
        return F.binary_cross_entropy_with_logits(y_pred.squeeze_(dim=1)[:, 1:], y_true.squeeze_(dim=1)[:, 1:])


class Squeeze(nn.Module):
    def forward(self, y_pred, y_true):
        return F.binary_cross_entropy_with_logits(y_pred.squeeze(dim=1)[:, 1:], y_true.squeeze(dim=1)[:, 1:])


class InPlaceSigmoid(nn.Module):
    def forward(self, y_pred, y_true):
        return F.binary_cross_entropy(y_pred.sigmoid_(), y_true.clamp_(0.1, 0.9))


class Sigmoid(nn.Module):
    def forward(self, y_pred, y_true):
        return F.binary_cross_entropy(y_pred.sigmoid(), y_true.clamp(0.1, 0.9))


@pytest.mark.parametrize("in_place, apart", [(InPlaceSqueeze, Squeeze), (InPlaceSigmoid, Sigmoid)])
@pytest.mark.parametrize("method", [*METHODS, RepresentationSimilarity])
def test_a_criterion_that_works_in_place_works_on_copies(in_place, apart, method):
    X = np.random.default_rng(0).normal(size=(16, 1, 4, 4)).astype("float32")
    y = (X > 0).astype("float32")
    net = fitted(NeuralNet, lambda: nn.Conv2d(1, 1, 3, padding=1), X, y.copy(), criterion=apart)
    options = {} if method is RepresentationSimilarity else {"measurement": "neg_loss"}
    expected = method(**options).fit(net, X, y).transform(X[:3], y[:3])
    net.criterion_ = in_place()
    before = y.copy()
    found = method(**options).fit(net, X, y).transform(X[:3], y[:3])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())
    np.testing.assert_array_equal(y, before)
