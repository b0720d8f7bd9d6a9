from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklearn_source.network import Network

N, C, T = 12, 3, 4


class Unreduced(nn.Module):
    """A custom criterion with a reduction whose mean is over rows, of sums over outputs."""

    def __init__(self, reduction="mean"):
        super().__init__()
        self.reduction = reduction

    def forward(self, output, y):
        rows = ((output - y) ** 4).sum(1)
        return rows if self.reduction == "none" else rows.mean()


class NoReduction(nn.Module):
    def forward(self, output, y):
        return torch.log1p((output - y) ** 2).sum(1).mean()


class LooksAtValues(nn.Module):
    def forward(self, output, y):
        loss = ((output - y) ** 2).mean()
        return loss if loss > 1e-9 else loss * 2


class Weighted(NeuralNet):
    """Sample weights that travel in X, as in skorch's documentation."""

    def get_loss(self, y_pred, y_true, X=None, training=False):
        loss = super().get_loss(y_pred, y_true, X, training).mean(1)
        return (X["weight"] * loss).mean()

    def infer(self, x, **fit_params):
        return super().infer(x["X"], **fit_params)


class Penalised(NeuralNetRegressor):
    def get_loss(self, *args, **kwargs):
        return super().get_loss(*args, **kwargs) + 0.1 * sum(p.abs().sum() for p in self.module_.parameters())


class LogSoftmaxClassifier(NeuralNetClassifier):
    def get_loss(self, y_pred, y_true, X=None, training=False):
        return NeuralNet.get_loss(self, y_pred, y_true, X, training)


class Positions(nn.Module):
    def forward(self, z):
        return z.reshape(len(z), C, T)


weight = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)


pos_weight = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)


# name: (net class, criterion, its parameters, outputs, head, kind of targets)
CASES = {
    "ce": (NeuralNetClassifier, nn.CrossEntropyLoss, {}, C, None, "label"),
    "ce weight": (NeuralNetClassifier, nn.CrossEntropyLoss, {"weight": weight}, C, None, "label"),
    "ce smooth": (NeuralNet, nn.CrossEntropyLoss, {"label_smoothing": 0.2}, C, None, "label"),
    "ce smooth weight": (NeuralNet, nn.CrossEntropyLoss, {"label_smoothing": 0.2, "weight": weight}, C, None, "label"),
    "ce probs": (NeuralNet, nn.CrossEntropyLoss, {}, C, None, "probs"),
    "ce probs weight": (NeuralNet, nn.CrossEntropyLoss, {"weight": weight, "label_smoothing": 0.1}, C, None, "probs"),
    "ce sequence": (NeuralNet, nn.CrossEntropyLoss, {}, C * T, Positions(), "labels"),
    "ce sequence ignored": (NeuralNet, nn.CrossEntropyLoss, {}, C * T, Positions(), "ignored"),
    "ce sequence all": (
        NeuralNet, nn.CrossEntropyLoss, {"weight": weight, "label_smoothing": 0.3}, C * T, Positions(), "ignored",
    ),
    "ce sum": (NeuralNet, nn.CrossEntropyLoss, {"reduction": "sum", "weight": weight}, C, None, "label"),
    "nll probs": (NeuralNetClassifier, nn.NLLLoss, {}, C, nn.Softmax(1), "label"),
    "nll probs weight": (NeuralNetClassifier, nn.NLLLoss, {"weight": weight}, C, nn.Softmax(1), "label"),
    "nll logprobs": (NeuralNet, nn.NLLLoss, {}, C, nn.LogSoftmax(1), "label"),
    "nll override": (LogSoftmaxClassifier, nn.NLLLoss, {}, C, nn.LogSoftmax(1), "label"),
    "bce": (NeuralNetBinaryClassifier, nn.BCEWithLogitsLoss, {}, 1, None, "binary"),
    "bce multi": (NeuralNet, nn.BCEWithLogitsLoss, {"pos_weight": pos_weight}, C, None, "multi"),
    "bce weight": (NeuralNet, nn.BCEWithLogitsLoss, {"weight": weight}, C, None, "multi"),
    "mse": (NeuralNetRegressor, nn.MSELoss, {}, C, None, "number"),
    "mse sum": (NeuralNetRegressor, nn.MSELoss, {"reduction": "sum"}, C, None, "number"),
    "l1": (NeuralNetRegressor, nn.L1Loss, {}, C, None, "number"),
    "huber": (NeuralNetRegressor, nn.HuberLoss, {}, C, None, "number"),
    "smooth l1": (NeuralNetRegressor, nn.SmoothL1Loss, {"beta": 0.7}, C, None, "number"),
    "kl batchmean": (NeuralNet, nn.KLDivLoss, {"reduction": "batchmean"}, C, nn.LogSoftmax(1), "probs"),
    "bce probabilities": (NeuralNet, nn.BCELoss, {}, C, nn.Sigmoid(), "multi"),
    "custom": (NeuralNet, Unreduced, {}, C, None, "number"),
    "no reduction": (NeuralNet, NoReduction, {}, C, None, "number"),
    "looks at values": (NeuralNet, LooksAtValues, {}, C, None, "number"),
}  # fmt: skip


def targets(kind, rng):
    if kind == "label":
        return rng.integers(0, C, N)
    if kind in ("labels", "ignored"):
        y = rng.integers(0, C, (N, T))
        if kind == "ignored":
            y[rng.random((N, T)) < 0.3] = -100
        return y
    if kind == "probs":
        return rng.dirichlet(np.ones(C), N)
    if kind == "binary":
        return rng.integers(0, 2, N).astype(float)
    return rng.integers(0, 2, (N, C)).astype(float) if kind == "multi" else rng.normal(size=(N, C))


@pytest.fixture(params=CASES)
def case(request, make_net, rng):
    cls, criterion, params, n_out, head, kind = CASES[request.param]
    params = {f"criterion__{k}": v for k, v in params.items()}
    net = make_net(cls, criterion, n_out=n_out, head=head, batch_size=5, **params)
    network = Network.from_net(net)
    return net, network, network.prepare(rng.normal(size=(N, 5)), targets(kind, rng))


def test_mean_of_rows_is_the_loss_of_the_batch(case):
    net, network, rows = case
    # The batch is all there is to calibrate on, and it is one batch: a sum is over its rows.
    net.set_params(batch_size=N) if net.criterion_.__dict__.get("reduction") == "sum" else None
    network = Network.from_net(net)
    network.calibrate(rows)
    x, y = rows.batch(slice(None))
    losses = network.row_loss(network.forward(x), y)
    expected = net.get_loss(net.infer(x), y)
    assert losses.shape == (N,)
    torch.testing.assert_close(losses.mean(), expected)
    got = torch.autograd.grad(losses.mean(), list(network.module.parameters()))
    want = torch.autograd.grad(expected, list(net.module_.parameters()))
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(4))
def test_rounding_in_float32_is_not_taken_for_coupling(name, seed, make_net):
    cls, criterion, params, n_out, head, kind = CASES[name]
    rng = np.random.default_rng(seed)
    params = {f"criterion__{k}": v for k, v in params.items()}
    net = make_net(cls, criterion, n_out=n_out, head=head, dtype=torch.float32, seed=seed, batch_size=N, **params)
    network = Network.from_net(net)
    rows = network.prepare(3 * rng.normal(size=(N, 5)), targets(kind, rng))
    network.calibrate(rows)
    x, y = rows.batch(slice(None))
    losses = network.row_loss(network.forward(x), y)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses.mean(), net.get_loss(net.infer(x), y))


def test_a_row_does_not_depend_on_its_batch(case):
    _, network, rows = case
    network.calibrate(rows)
    x, y = rows.batch(slice(None))
    together = network.row_loss(network.forward(x), y)
    for i in (0, 5, N - 1):
        xi, yi = rows.batch([i])
        torch.testing.assert_close(network.row_loss(network.forward(xi), yi)[0], together[i])
    xi, yi = rows.batch([7, 3, 7])
    torch.testing.assert_close(network.row_loss(network.forward(xi), yi), together[[7, 3, 7]])


def test_sample_weights_in_x(make_net, rng):
    net = make_net(Weighted, criterion__reduction="none")
    network = Network.from_net(net)
    data = {"X": rng.normal(size=(N, 5)), "weight": rng.random(N)}
    rows = network.prepare(data, rng.normal(size=(N, C)))
    network.calibrate(rows)
    x, y = rows.batch(slice(None))
    output = network.forward(x)
    losses = network.row_loss(output, y, x)
    torch.testing.assert_close(losses, x["weight"] * ((output - y) ** 2).mean(1))
    torch.testing.assert_close(losses.mean(), net.get_loss(net.infer(x), y, X=x))
    with pytest.raises(ValueError, match="pass the batch x"):
        Network.from_net(net).row_loss(output, y)
    root = torch.stack(list(network.row_loss.output_hessian(output, y, x).columns()))
    expected = torch.diag_embed((2 / C * x["weight"])[:, None].expand(-1, C))
    torch.testing.assert_close(torch.einsum("cbi,cbj->bij", root, root), expected)


def test_a_penalty_in_get_loss_is_in_the_value_but_in_no_rows_gradient(make_net, rng):
    net, plain = make_net(Penalised), make_net(NeuralNetRegressor)
    grads, values = [], []
    for n in (net, plain):
        network = Network.from_net(n)
        x, y = network.prepare(rng.normal(size=(4, 5)) * 0 + 1, np.ones((4, C))).batch(slice(None))
        loss = network.row_loss(network.forward(x), y).mean()
        values.append(float(loss.detach()))
        grads.append(torch.autograd.grad(loss, list(network.module.parameters())))
        assert all(p.requires_grad for p in network.module.parameters())
    torch.testing.assert_close(*grads)
    penalty = 0.1 * sum(float(p.detach().abs().sum()) for p in net.module_.parameters())
    assert values[0] == pytest.approx(values[1] + penalty)


def test_inside_vmap_a_calibrated_network_gives_per_row_gradients(make_net, rng):
    network = Network.from_net(make_net(NeuralNetClassifier, nn.CrossEntropyLoss, criterion__weight=weight))
    rows = network.prepare(rng.normal(size=(N, 5)), rng.integers(0, C, N))
    x, y = rows.batch(slice(None))
    output = network.forward(x).detach()

    def one(o, t):
        return network.row_loss(o[None], t[None])[0]

    with pytest.raises(RuntimeError, match="calibrate"):
        torch.func.vmap(torch.func.grad(one))(output, y)
    network.calibrate(rows)
    got = torch.func.vmap(torch.func.grad(one))(output, y)
    leaf = output.clone().requires_grad_()
    torch.testing.assert_close(got, torch.autograd.grad(network.row_loss(leaf, y).sum(), leaf)[0])


class ActivationPenalty(NeuralNetRegressor):
    """Adds a scalar to every unreduced element, but is a mean over rows all the same."""

    def get_loss(self, y_pred, *args, **kwargs):
        return super().get_loss(y_pred, *args, **kwargs) + 0.1 * (y_pred**2).mean()


def test_a_penalty_on_outputs_belongs_to_its_row(make_net, rng):
    net = make_net(ActivationPenalty)
    network = Network.from_net(net)
    x, y = network.prepare(rng.normal(size=(N, 5)), rng.normal(size=(N, C))).batch(slice(None))
    output = network.forward(x)
    losses = network.row_loss(output, y)
    torch.testing.assert_close(losses, ((output - y) ** 2 + 0.1 * output**2).mean(1))
    torch.testing.assert_close(losses.mean(), net.get_loss(output, y))
