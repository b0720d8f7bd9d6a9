"""What a loss is recognised as: by its criterion's type, or by what it gives; criteria beyond the common ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn
from torch.nn import functional as F

from sklearn_source.curvature import choose_fisher
from sklearn_source.network import Network

N, C = 11, 3


class GaussianNLL(NeuralNetRegressor):
    """Mean and log-variance in two outputs."""

    def get_loss(self, y_pred, y_true, X=None, training=False):
        return F.gaussian_nll_loss(y_pred[:, :1], y_true, y_pred[:, 1:].exp())


class Focal(nn.Module):
    def forward(self, output, y):
        losses = F.cross_entropy(output, y, reduction="none")
        return ((1 - (-losses).exp()) ** 2 * losses).mean()


class Missing(nn.Module):
    """Targets that are not there are marked by -1: the mean is over those that are."""

    def forward(self, output, y):
        there = y >= 0
        loss = F.binary_cross_entropy_with_logits(output, y, reduction="none")
        return (loss * there).sum() / there.sum()


def focal(o, y):
    p = o.softmax(1).gather(1, y[:, None])[:, 0]
    return -((1 - p) ** 2) * p.log()


def log_factorial_free(o, y):
    return (o.exp() - y * o).mean(1)


def huber(o, y):
    d = (o - y).abs()
    return torch.where(d < 1, d**2 / 2, d - 0.5).mean(1)


def smooth(o, y):
    d = (o - y).abs()
    return torch.where(d < 1, d**2 / 2, d - 0.5).mean(1)


def bce(o, y):
    return -(y * F.logsigmoid(o) + (1 - y) * F.logsigmoid(-o)).mean(1)


# name: (net class, criterion, its parameters, outputs, head, targets, loss of every row by hand, what is recognised)
CASES = {
    "mse": (NeuralNet, nn.MSELoss, {}, C, None, "number", lambda o, y: ((o - y) ** 2).mean(1), None),
    "multi-label": (NeuralNet, nn.BCEWithLogitsLoss, {}, C, None, "multi", bce, None),
    "l1": (NeuralNet, nn.L1Loss, {}, C, None, "number", lambda o, y: (o - y).abs().mean(1), None),
    "huber": (NeuralNet, nn.HuberLoss, {}, C, None, "number", huber, "elementwise"),
    "smooth l1": (NeuralNet, nn.SmoothL1Loss, {}, C, None, "number", smooth, "elementwise"),
    "poisson": (NeuralNet, nn.PoissonNLLLoss, {}, C, None, "count", log_factorial_free, "elementwise"),
    "poisson rates": (
        NeuralNet, nn.PoissonNLLLoss, {"log_input": False}, C, nn.Softplus(), "count",
        lambda o, y: (o - y * (o + 1e-8).log()).mean(1), "elementwise",
    ),
    "bce": (
        NeuralNet, nn.BCELoss, {}, C, nn.Sigmoid(), "multi",
        lambda o, y: -(y * o.log() + (1 - y) * (1 - o).log()).mean(1), None,
    ),
    "kl": (
        NeuralNet, nn.KLDivLoss, {"reduction": "batchmean"}, C, nn.LogSoftmax(1), "probs",
        lambda o, y: (y * (y.log() - o)).sum(1), "categorical_logprobs",
    ),
    "gaussian nll": (
        GaussianNLL, nn.MSELoss, {}, 2, None, "one",
        lambda o, y: (o[:, 1] + (o[:, 0] - y[:, 0]) ** 2 / o[:, 1].exp()) / 2, "none",
    ),
    "focal": (NeuralNet, Focal, {}, C, None, "label", focal, "none"),
    "missing": (NeuralNet, Missing, {}, C, None, "missing", None, "elementwise"),
}  # fmt: skip


def targets(kind, rng):
    made = {
        "number": lambda: 2 * rng.normal(size=(N, C)), "one": lambda: rng.normal(size=(N, 1)),
        "count": lambda: rng.poisson(2.0, (N, C)).astype(float), "multi": lambda: rng.integers(0, 2, (N, C)) * 1.0,
        "label": lambda: rng.integers(0, C, N), "probs": lambda: rng.dirichlet(np.ones(C), N),
        "missing": lambda: np.where(rng.random((N, C)) < 0.3, -1.0, rng.integers(0, 2, (N, C)) * 1.0),
    }  # fmt: skip
    return made[kind]()


def missing_by_hand(output, y):
    there = (y >= 0).double()
    losses = -(y * F.logsigmoid(output) + (1 - y) * F.logsigmoid(-output)) * there
    return losses.sum(1) / there.sum(1).mean()


def calibrated(net, X, y):
    network = Network.from_net(net)
    rows = network.prepare(X, y)
    network.calibrate(rows)
    x, t = rows.batch(slice(None))
    return network, x, t, network.forward(x)


@pytest.fixture(params=CASES)
def name(request):
    return request.param


@pytest.fixture
def case(make_net, rng, name):
    cls, criterion, params, n_out, head, kind, by_hand, _ = CASES[name]
    params = {f"criterion__{k}": v for k, v in params.items()}
    net = make_net(cls, criterion, n_out=n_out, head=head, **params)
    return *calibrated(net, rng.normal(size=(N, 5)), targets(kind, rng)), by_hand or missing_by_hand


def test_row_losses_by_hand(case):
    network, x, y, output, by_hand = case
    leaf, other = output.detach().requires_grad_(), output.detach().requires_grad_()
    found, expected = network.row_loss(leaf, y, x), by_hand(other, y)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found.sum(), leaf)[0], torch.autograd.grad(expected.sum(), other)[0])


def test_curvature_by_hand(case, name):
    network, x, y, output, by_hand = case
    recognised = CASES[name][-1]
    predictive = network.row_loss.recognised.get(2)
    assert (recognised in (None, "none")) if predictive is None else predictive.name == recognised
    roots = torch.stack(list(network.row_loss.output_hessian(output, y, x).columns()))
    found = torch.einsum("cbi,cbj->bij", roots, roots)
    if name == "l1":
        expected = torch.eye(C, dtype=torch.float64).expand(N, C, C) / C
    elif name == "kl":  # of the distribution that the outputs stand for, in their coordinates
        expected = torch.diag_embed(output.exp())
    elif name == "bce":
        expected = torch.diag_embed(1 / (output * (1 - output))) / C
    else:
        one = [torch.autograd.functional.hessian(lambda o, i=i: by_hand(o[None], y[i : i + 1])[0], output[i].detach())
               for i in range(N)]  # fmt: skip
        if name == "missing":  # by hand divides by the mean of one row
            share = (y >= 0).double().sum(1) / (y >= 0).double().sum(1).mean()
            one = [h * s for h, s in zip(one, share)]
        values, vectors = torch.linalg.eigh(torch.stack(one))
        expected = vectors @ torch.diag_embed(values.clamp(min=0)) @ vectors.mT
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_many_outputs_are_sampled_where_a_draw_is_cheap(case, name):
    network = case[0]
    assert choose_fisher("auto", network, 5000) == ("empirical" if CASES[name][-1] == "none" else "sampled")


@pytest.mark.parametrize(
    ("cls", "criterion", "expected", "classifies"),
    [
        (NeuralNet, nn.CrossEntropyLoss, "categorical", True),
        (NeuralNetClassifier, nn.CrossEntropyLoss, "categorical", True),
        (NeuralNetClassifier, nn.NLLLoss, "categorical_probs", True),
        (NeuralNet, nn.NLLLoss, "categorical_logprobs", True),
        (NeuralNetBinaryClassifier, nn.BCEWithLogitsLoss, "bernoulli", True),
        (NeuralNet, nn.BCEWithLogitsLoss, "bernoulli", True),
        (NeuralNetRegressor, nn.MSELoss, "gaussian", False),
        (NeuralNetRegressor, nn.L1Loss, "laplace", False),
        (NeuralNetRegressor, nn.HuberLoss, "unknown", False),
        (NeuralNetRegressor, nn.SmoothL1Loss, "unknown", False),
        (NeuralNetClassifier, nn.MultiMarginLoss, "unknown", True),
    ],
)
def test_what_outputs_parametrise(cls, criterion, expected, classifies):
    network = Network.from_net(cls(nn.Linear(2, 2), criterion=criterion).initialize())
    assert network.predictive.name == expected
    assert network.is_classification is classifies


def test_an_override_that_takes_log_probabilities_is_seen():
    class LogSoftmax(NeuralNetClassifier):
        def get_loss(self, y_pred, y_true, X=None, training=False):
            return NeuralNet.get_loss(self, y_pred, y_true, X, training)

    class Other(NeuralNetClassifier):
        def get_loss(self, y_pred, y_true, X=None, training=False):
            return super().get_loss(y_pred, y_true, X, training) ** 2

    assert Network.from_net(LogSoftmax(nn.Linear(2, 2)).initialize()).predictive.name == "categorical_logprobs"
    assert Network.from_net(Other(nn.Linear(2, 2)).initialize()).predictive.name == "unknown"
