"""Criteria as people write them: with a mode of their own, working in place, of several outputs, of two classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklearn_source import InfluenceFunctions, RepresentationSimilarity, SourceAttribution, TracIn, TrajectoryRecorder
from sklearn_source.curvature import EKFAC
from tests._methods import GRADIENT_METHODS, joint

METHODS = [method for method in GRADIENT_METHODS if method.has_unit]


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


class Focal(nn.Module):
    def forward(self, z, t):
        p = torch.sigmoid(torch.where(t > 0.5, z, -z))
        return (-((1 - p) ** 2) * p.log()).mean()


class FocalOfProbabilities(nn.Module):
    def forward(self, p, t):
        p = torch.where(t > 0.5, p, 1 - p)
        return (-((1 - p) ** 2) * p.log()).mean()


class Brier(nn.Module):
    def forward(self, p, t):
        return (p - t).pow(2).mean()


class Hinge(nn.Module):
    def forward(self, z, t):
        return (1 - z * (2 * t - 1)).clamp(min=0).mean()


def logits():
    return nn.Sequential(nn.Linear(5, 1), nn.Flatten(0))


def probabilities():
    return nn.Sequential(nn.Linear(5, 1), nn.Sigmoid(), nn.Flatten(0))


BINARY = {  # criterion: (module, the target of no, log-odds of the output)
    "bce": (nn.BCELoss, probabilities, 0, torch.logit),
    "bce with logits": (nn.BCEWithLogitsLoss, logits, 0, lambda z: z),
    "focal": (Focal, logits, 0, lambda z: z),
    "focal of probabilities": (FocalOfProbabilities, probabilities, 0, torch.logit),
    "brier": (Brier, probabilities, 0, torch.logit),
    "soft margin": (nn.SoftMarginLoss, logits, -1, lambda z: z),
    "hinge": (Hinge, logits, 0, lambda z: z),
}


@pytest.mark.parametrize("name", BINARY)
def test_log_odds_of_a_binary_classifier_under_any_criterion(name):
    criterion, make, no, log_odds = BINARY[name]
    X, _ = rows()
    y = np.where(X[:, 0] > 0, 1, no).astype("float32")
    net = fitted(NeuralNetBinaryClassifier, make, X, y, criterion=criterion)

    def own(output, target):
        return torch.where(target > 0.5, 1.0, -1.0) * log_odds(output.reshape(len(output)))

    found = TracIn().fit(net, X, y)
    np.testing.assert_allclose(
        found.transform(X[:4], y[:4]),
        TracIn(measurement=own).fit(net, X, y).transform(X[:4], y[:4]),
        rtol=1e-4,
        atol=1e-6,
    )
    with torch.no_grad():
        yes = log_odds(net.module_(torch.from_numpy(X[:4]))) > 0
    predicted = np.where(yes, 1, no).astype("float32")
    np.testing.assert_array_equal(found.transform(X[:4]), found.transform(X[:4], predicted))
    loss = TracIn(measurement="neg_loss").fit(net, X, y)
    np.testing.assert_array_equal(loss.transform(X[:4]), loss.transform(X[:4], predicted))
    assert np.abs(loss.transform(X[:4], y[:4])).max() > 0


def test_bce_on_probabilities_is_bce_on_their_logits():
    X, _ = rows()
    y = (X[:, 0] > 0).astype("float32")
    scores = []
    for criterion, make in ((nn.BCELoss, probabilities), (nn.BCEWithLogitsLoss, logits)):
        net = fitted(NeuralNetBinaryClassifier, make, X, y, criterion=criterion)
        scores.append(SourceAttribution(n_segments=2).fit(net, X, y).transform(X[:4]))
    np.testing.assert_allclose(*scores, rtol=1e-3, atol=1e-5 * np.abs(scores[0]).max())


@pytest.mark.parametrize("classes", [1, 2])
def test_probabilities_that_underflow_are_said(classes):
    X, _ = rows()
    labels = (X[:, 0] > 0).astype("int64")

    def make():
        last = [nn.Sigmoid(), nn.Flatten(0)] if classes == 1 else [nn.Softmax(-1)]
        return nn.Sequential(nn.Linear(5, classes), *last)

    cls = NeuralNetBinaryClassifier if classes == 1 else NeuralNetClassifier
    y = labels.astype("float32") if classes == 1 else labels
    criterion = nn.BCELoss if classes == 1 else nn.NLLLoss
    net = fitted(cls, make, X, y, criterion=criterion)
    with torch.no_grad():
        net.module_[0].weight[-1] += 20.0
    tracin = InfluenceFunctions().fit(net, X, y)
    with pytest.warns(UserWarning, match="probabilities are 0 and 1 in torch.float32"):
        assert not tracin.transform(50 * np.abs(X[:2])).any()


class Pinball(nn.Module):
    def forward(self, y_pred, y_true):
        error = y_true - y_pred
        return torch.maximum(0.9 * error, -0.1 * error).mean()


@pytest.mark.filterwarnings("ignore:the criterion's second derivative in the output is zero")
@pytest.mark.parametrize(
    "options",
    [{"damping": "mean_eigenvalue"}, {"curvature": joint(), "damping": 0.0}, {"curvature": "exact", "damping": 0.0}],
)
def test_influence_functions_without_any_curvature_are_refused(options):
    X, y = rows()
    net = fitted(NeuralNetRegressor, lambda: nn.Linear(5, 1), X, y, criterion=Pinball)
    with pytest.raises(ValueError, match="curvature is zero in every direction .a piecewise linear criterion"):
        InfluenceFunctions(**options).fit(net, X, y)
    for way in (
        InfluenceFunctions(damping=0.1),
        InfluenceFunctions(curvature=EKFAC(fisher="empirical")),
        TracIn(),
    ):
        assert way.fit(net, X, y).transform(X[:2]).any()
