"""Sample weights that travel in X, and other weights of rows that a batch divides by."""

from __future__ import annotations

import pytest
import torch
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn
from torch.nn import functional as F

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


def targets(kind, rng):
    if kind == "label":
        return rng.integers(0, C, N)
    return rng.integers(0, 2, N) * 1.0 if kind == "binary" else 2 * rng.normal(size=(N, C))


def calibrated(net, X, y):
    network = Network.from_net(net)
    rows = network.prepare(X, y)
    network.calibrate(rows)
    x, t = rows.batch(slice(None))
    return network, x, t, network.forward(x)


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
