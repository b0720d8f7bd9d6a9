"""Criteria beyond the common ones, overridden losses, and sample weights that travel in X."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn
from torch.nn import functional as F

from sklearn_source.curvature import choose_fisher
from sklearn_source.loss import resolve_measurement
from sklearn_source.network import Network

N, C = 11, 3


class InDict:
    """The module reads "x"; "sample_weight" is for the loss alone."""

    def infer(self, x, **fit_params):
        return super().infer(x["x"], **fit_params)


class MeanOfWeighted(InDict, NeuralNet):
    """The idiom of skorch's FAQ: an unreduced criterion, weighed, then the mean."""

    def get_loss(self, y_pred, y_true, X=None, training=False):
        loss = super().get_loss(y_pred, y_true, X, training)
        weight = X["sample_weight"].reshape(-1, *[1] * (loss.ndim - 1))
        return (weight * loss).mean()


class WeightedMean(InDict, NeuralNet):
    """Divided by the weights of the batch."""

    def get_loss(self, y_pred, y_true, X=None, training=False):
        loss = super().get_loss(y_pred, y_true, X, training)
        loss = loss if loss.ndim == 1 else loss.mean(1)
        return (X["sample_weight"] * loss).sum() / X["sample_weight"].sum()


class PerClass(InDict, NeuralNetClassifier):
    """A NeuralNetClassifier's way: its own criterion is called by hand."""

    def get_loss(self, y_pred, y_true, X=None, training=False):
        loss = F.cross_entropy(y_pred, y_true, reduction="none")
        return (X["sample_weight"] * loss).sum() / X["sample_weight"].sum()


class BinaryWeighted(InDict, NeuralNetBinaryClassifier):
    """One output, squeezed to (B,)."""

    def get_loss(self, y_pred, y_true, X=None, training=False):
        loss = super().get_loss(y_pred, y_true, X, training)
        return (X["sample_weight"] * loss).sum() / X["sample_weight"].sum()


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
        lambda o, y: -(y * o.log() + (1 - y) * (1 - o).log()).mean(1), "elementwise",
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
        "binary": lambda: rng.integers(0, 2, N) * 1.0,
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


WEIGHED = {
    "mean mse": (MeanOfWeighted, nn.MSELoss, C, "number"),
    "mean ce": (MeanOfWeighted, nn.CrossEntropyLoss, C, "label"),
    "weighted mse": (WeightedMean, nn.MSELoss, C, "number"),
    "weighted l1": (WeightedMean, nn.L1Loss, C, "number"),
    "weighted ce": (WeightedMean, nn.CrossEntropyLoss, C, "label"),
    "classifier": (PerClass, nn.NLLLoss, C, "label"),
    "binary": (BinaryWeighted, nn.BCEWithLogitsLoss, 1, "binary"),
}


@pytest.mark.parametrize("even", [False, True])
@pytest.mark.parametrize("which", WEIGHED)
def test_sample_weights(make_net, rng, which, even):
    """sample weight times loss, over the mean weight of the training rows where the batch divides by its weights."""
    cls, criterion, n_out, kind = WEIGHED[which]
    params = {} if criterion is nn.NLLLoss else {"criterion__reduction": "none"}
    weight = rng.uniform(0.2, 3, N)
    weight[4] = 0
    if even:  # nothing to see in the rows that are looked at first
        weight[:4] = 0.7
    X = {"x": rng.normal(size=(N, 5)), "sample_weight": weight}
    network, x, y, output = calibrated(make_net(cls, criterion, n_out=n_out, **params), X, targets(kind, rng))
    plain = {
        nn.MSELoss: lambda o: ((o - y) ** 2).mean(1),
        nn.L1Loss: lambda o: (o - y).abs().mean(1),
        nn.CrossEntropyLoss: lambda o: F.cross_entropy(o, y, reduction="none"),
        nn.NLLLoss: lambda o: F.cross_entropy(o, y, reduction="none"),
        nn.BCEWithLogitsLoss: lambda o: -y * F.logsigmoid(o) - (1 - y) * F.logsigmoid(-o),
    }[criterion]
    w = torch.from_numpy(weight) / (1 if which.startswith("mean") else weight.mean())
    torch.testing.assert_close(network.row_loss(output, y, x), w * plain(output))
    index = [8, 4, 1]
    part = {k: v[index] for k, v in x.items()}
    torch.testing.assert_close(network.row_loss(output[index], y[index], part), (w * plain(output))[index])
    roots = torch.stack(list(network.row_loss.output_hessian(output, y, x).columns()))
    roots = roots.reshape(*roots.shape[:2], -1)
    found = torch.einsum("cbi,cbj->bij", roots, roots)
    if criterion is nn.BCEWithLogitsLoss:
        assert output.shape == (N,)
        hessian = (output.sigmoid() * (-output).sigmoid())[:, None, None]
    elif criterion is nn.L1Loss:
        hessian = torch.eye(C, dtype=torch.float64).expand(N, C, C) / C
    elif criterion is nn.MSELoss:
        hessian = 2 / C * torch.eye(C, dtype=torch.float64).expand(N, C, C)
    else:
        p = output.softmax(1)
        hessian = torch.diag_embed(p) - p[:, :, None] * p[:, None]
        measure = resolve_measurement("auto", network)
        own = p.gather(1, y[:, None])[:, 0]
        torch.testing.assert_close(measure(output, measure.target(output, y, x), x), (own / (1 - own)).log())
    torch.testing.assert_close(found, w[:, None, None] * hessian, rtol=1e-6, atol=1e-9)


class BalancedByBatch(nn.Module):
    """Weights that depend on which other rows are in the batch: no row has a weight of its own."""

    def forward(self, output, y):
        counts = torch.bincount(y, minlength=C).to(output.dtype)
        return (F.cross_entropy(output, y, reduction="none") / counts[y]).sum() / C


class RootMeanSquare(nn.Module):
    def forward(self, output, y):
        return ((output - y) ** 2).mean().sqrt()


class DividesByOutputs(nn.Module):
    """A weight that the outputs have a say in is no weight of the rows."""

    def forward(self, output, y):
        weight = output.detach().square().sum(1)
        return (weight * ((output - y) ** 2).mean(1)).sum() / weight.sum()


@pytest.mark.parametrize(
    ("criterion", "kind"), [(BalancedByBatch, "label"), (RootMeanSquare, "number"), (DividesByOutputs, "number")]
)
def test_what_is_no_weighted_mean_is_refused(make_net, rng, criterion, kind):
    network = Network.from_net(make_net(NeuralNet, criterion))
    y = targets(kind, rng)
    if kind == "label":
        y[:4] = [0, 0, 1, 2]
    with pytest.raises(ValueError, match="couples rows"):
        network.calibrate(network.prepare(rng.normal(size=(N, 5)), y))


class Blurred(nn.Module):
    """Couples neighbouring outputs of a row: neither a softmax nor a sum over elements."""

    def forward(self, output, y):
        return ((output - y) ** 2).mean() + (output[:, 1:] - output[:, :-1]).pow(2).mean()


def test_a_general_hessian_of_many_outputs_is_refused(make_net, rng):
    network = Network.from_net(make_net(NeuralNet, Blurred, n_out=5000))
    rows = network.prepare(rng.normal(size=(4, 5)), rng.normal(size=(4, 5000)))
    network.calibrate(rows)
    x, y = rows.batch(slice(None))
    assert choose_fisher("auto", network, 5000) == "empirical"
    with pytest.raises(ValueError, match='5000 x 5000 per row are too many .* use fisher="empirical"'):
        next(network.row_loss.output_hessian(network.forward(x), y).columns())


class TwoTasks(NeuralNet):
    """Targets by name: a class, and a number where it is known."""

    def get_loss(self, y_pred, y_true, X=None, training=False):
        there = y_true["known"]
        number = ((y_pred[:, C] - y_true["number"]) ** 2 * there).sum() / there.sum()
        return F.cross_entropy(y_pred[:, :C], y_true["label"]) + number if self.both else number


@pytest.mark.parametrize("both", [False, True])
def test_targets_by_name(make_net, rng, both):
    y = {"label": rng.integers(0, C, N), "number": rng.normal(size=N), "known": (rng.random(N) < 0.6).astype(float)}
    net = make_net(TwoTasks, n_out=C + 1)
    net.both = both
    if both:  # one mean is over rows and one over those that are known: no weight of a row serves both
        with pytest.raises(ValueError, match="couples rows"):
            calibrated(net, rng.normal(size=(N, 5)), y)
        return
    network, x, t, output = calibrated(net, rng.normal(size=(N, 5)), y)
    known = t["known"].double()
    expected = known * (output[:, C] - t["number"].double()) ** 2 / known.mean()
    torch.testing.assert_close(network.row_loss(output, t, x), expected)
    roots = torch.stack(list(network.row_loss.output_hessian(output, t, x).columns()))
    hessian = torch.zeros(N, C + 1, C + 1, dtype=torch.float64)
    hessian[:, C, C] = 2 * known / known.mean()
    torch.testing.assert_close(torch.einsum("cbi,cbj->bij", roots, roots), hessian)


def test_a_batch_changed_in_place_is_another_batch(make_net, rng):
    net = make_net(WeightedMean, nn.MSELoss, n_out=C, criterion__reduction="none")
    X = {"x": rng.normal(size=(N, 5)), "sample_weight": rng.uniform(0.5, 2, N)}
    network, x, y, output = calibrated(net, X, targets("number", rng))
    before = network.row_loss(output, y, x)
    torch.testing.assert_close(network.row_loss(output, y, x), before)
    y.neg_()
    torch.testing.assert_close(network.row_loss(output, y, x), network.row_loss(output, y.clone(), x))
    other = {**x, "sample_weight": 2 * x["sample_weight"]}
    torch.testing.assert_close(network.row_loss(output, y, other), 2 * network.row_loss(output, y, x))
