"""The net's own loss: of modules with several outputs, of forward passes in any order."""

from __future__ import annotations

import pickle

import pytest
import torch
from skorch import NeuralNet
from torch import nn

from sklearn_source.loss import resolve_measurement
from sklearn_source.network import Network

N, C = 6, 3


class OptionalState(nn.Module):
    """Hands back its state where it was given one: a tuple for some batches, a tensor for others."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, C, dtype=torch.float64)

    def forward(self, x, state=None):
        z = self.layer(x)
        return z if state is None else (z, z.exp() + state)


class FirstOnly(NeuralNet):
    def get_loss(self, y_pred, y_true, X=None, training=False):
        first, _ = y_pred
        return super().get_loss(first, y_true, X, training)


class BothOutputs(NeuralNet):
    def get_loss(self, y_pred, y_true, X=None, training=False):
        return super().get_loss(y_pred[0], y_true, X, training) + y_pred[1].mean()


def stateful(rng, n):
    return {"x": rng.normal(size=(n, 5)), "state": rng.normal(size=(n, C))}


@pytest.fixture(params=[N, 2])  # of two rows, unpacking a tensor (2, C) would not fail
def tuples(request, rng):
    """A calibrated network whose module returned tuples, and a batch."""
    network = Network.from_net(FirstOnly(OptionalState, criterion=nn.MSELoss).initialize())
    n = request.param
    rows = network.prepare(stateful(rng, n), rng.normal(size=(n, C)))
    network.calibrate(rows)
    return network, *rows.batch(slice(None))


def test_a_forward_pass_leaves_nothing_behind_for_the_loss(tuples):
    network, x, y = tuples
    output = network.forward(x)
    expected = ((output - y) ** 2).mean(1)
    torch.testing.assert_close(network.row_loss(output, y), expected)
    before = pickle.dumps(network)
    other = network.forward({"x": x["x"]})  # a tensor, no tuple
    assert pickle.dumps(network) == before
    torch.testing.assert_close(other, output)
    torch.testing.assert_close(network.row_loss(output, y), expected)
    torch.testing.assert_close(network.row_loss.own_losses(output, y), expected)


def test_the_loss_of_one_network_needs_no_forward_pass_of_its_own(tuples):
    """As in another process, or where the outputs are those of stacked copies of the module."""
    network, x, y = tuples
    output = network.forward(x)
    again = pickle.loads(pickle.dumps(network))
    torch.testing.assert_close(again.row_loss(output, y), ((output - y) ** 2).mean(1))


def test_the_first_of_several_outputs(tuples):
    network, x, y = tuples
    output = network.forward(x)
    torch.testing.assert_close(output, network.module(**x)[0])
    leaf = output.detach().requires_grad_()
    gradient = torch.autograd.grad(network.row_loss(leaf, y).sum(), leaf)[0]
    torch.testing.assert_close(gradient, 2 / C * (output - y))
    roots = torch.stack(list(network.row_loss.output_hessian(output, y).columns()))
    identity = torch.eye(C, dtype=torch.float64).expand(len(output), C, C)
    torch.testing.assert_close(torch.einsum("cbi,cbj->bij", roots, roots), 2 / C * identity)
    measure = resolve_measurement("neg_loss", network)
    torch.testing.assert_close(measure(output, measure.target(output, y)), -((output - y) ** 2).mean(1))
    measure = resolve_measurement("prediction", network, 1)
    torch.testing.assert_close(measure(output), output[:, 1])


def test_a_loss_of_the_other_outputs_is_refused_where_they_are_no_rows(rng):
    """What a recurrent network keeps is of shape (layers, rows, ...)."""
    module = nn.GRU(5, C, batch_first=True)

    class OfTheState(NeuralNet):
        def get_loss(self, y_pred, y_true, *args, **kwargs):
            return (y_pred[0][:, -1] - y_true).pow(2).mean() + y_pred[1].pow(2).mean()

    network = Network.from_net(OfTheState(module, criterion=nn.MSELoss).initialize())
    rows = network.prepare(rng.normal(size=(N, 3, 5)).astype("float32"), rng.normal(size=(N, C)).astype("float32"))
    with pytest.raises(ValueError, match=r"reads output 1 of its module, of shape \(1, 4, "):
        network.calibrate(rows)


def test_calibrating_anew_takes_the_new_number_of_outputs(rng):
    network = Network.from_net(NeuralNet(OptionalState, criterion=nn.MSELoss).initialize())
    y = rng.normal(size=(N, C))
    with pytest.raises(ValueError, match="loss fails on these rows"):  # MSELoss takes no tuple
        network.calibrate(network.prepare(stateful(rng, N), y))
    rows = network.prepare({"x": rng.normal(size=(N, 5))}, y)
    network.calibrate(rows)
    x, t = rows.batch(slice(None))
    output = network.forward(x)
    torch.testing.assert_close(network.row_loss(output, t), ((output - t) ** 2).mean(1))


class NeedsX(NeuralNet):
    def get_loss(self, y_pred, y_true, X=None, training=False):
        return (X["weight"] * super().get_loss(y_pred, y_true, X, training).mean(1)).mean()

    def infer(self, x, **fit_params):
        return super().infer(x["x"], **fit_params)


def test_what_get_loss_reads_of_x_has_to_be_there(make_net, rng):
    network = Network.from_net(make_net(NeedsX, criterion__reduction="none"))
    x = {"x": rng.normal(size=(N, 5)), "weight": rng.random(N)}
    rows = network.prepare(x, rng.normal(size=(N, C)))
    network.calibrate(rows)
    x, y = rows.batch(slice(None))
    output = network.forward(x)
    with pytest.raises(ValueError, match="pass the batch x"):
        network.row_loss(output, y)
    with pytest.raises(ValueError, match="reads 'weight' of X, which these rows do not have"):
        network.row_loss(output, y, {"x": x["x"]})
