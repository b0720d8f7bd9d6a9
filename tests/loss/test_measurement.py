from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklearn_source.loss import Measurement, resolve_measurement
from sklearn_source.network import Network

N, C = 6, 3


def build(make_net, cls, criterion, n_out=C, head=None, **kwargs):
    return Network.from_net(make_net(cls, criterion, n_out=n_out, head=head, **kwargs))


@pytest.fixture
def x(rng):
    return torch.from_numpy(rng.normal(size=(N, 5)))


def norm(output, target):
    return output.norm(dim=1)


def with_target(output, target):
    return output.gather(1, target[:, None])[:, 0]


with_target.needs_y = True


@pytest.mark.parametrize(
    ("cls", "criterion", "head", "probabilities"),
    [
        (NeuralNetClassifier, nn.CrossEntropyLoss, None, lambda z: z.softmax(1)),
        (NeuralNetClassifier, nn.NLLLoss, nn.Softmax(1), lambda z: z),
        (NeuralNet, nn.NLLLoss, nn.LogSoftmax(1), torch.exp),
    ],
)
def test_log_odds_of_classes(make_net, x, cls, criterion, head, probabilities):
    network = build(make_net, cls, criterion, head=head)
    measure = resolve_measurement("auto", network)
    assert (measure.name, measure.needs_y) == ("log_odds", False)
    output = network.forward(x)
    p = probabilities(output)
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    own = p[torch.arange(N), y]
    torch.testing.assert_close(measure(output, measure.target(output, y)), own.log() - (1 - own).log())
    predicted = measure.target(output)
    assert torch.equal(predicted, p.argmax(1))
    torch.testing.assert_close(measure(output, predicted), p.amax(1).log() - (1 - p.amax(1)).log())
    leaf = output.detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda o: measure(o, y), leaf)


def test_log_odds_keep_their_digits(make_net):
    network = build(make_net, NeuralNetClassifier, nn.CrossEntropyLoss)
    measure = resolve_measurement("log_odds", network)
    output = torch.tensor([[40.0, 0.0, 0.0]])
    torch.testing.assert_close(measure(output, torch.tensor([0])), torch.tensor([40 - np.log(2)], dtype=torch.float32))


@pytest.mark.parametrize("cls", [NeuralNetBinaryClassifier, NeuralNet])
def test_log_odds_of_one_binary_output(make_net, x, cls):
    network = build(make_net, cls, nn.BCEWithLogitsLoss, n_out=1)
    measure = resolve_measurement("auto", network)
    output = network.forward(x)
    z = output.reshape(N)
    y = torch.tensor([0.0, 1, 1, 0, 1, 0]).reshape(output.shape)
    p = z.sigmoid()
    own = torch.where(y.reshape(N) == 1, p, 1 - p)
    torch.testing.assert_close(measure(output, measure.target(output, y)), own.log() - (1 - own).log())
    torch.testing.assert_close(measure(output, measure.target(output)), z.abs())


def test_the_nets_threshold_decides_the_predicted_class(make_net, x):
    network = build(make_net, NeuralNetBinaryClassifier, nn.BCEWithLogitsLoss, n_out=1, threshold=1e-9)
    measure = resolve_measurement("auto", network)
    output = network.forward(x)
    assert measure.target(output).tolist() == [1] * N
    torch.testing.assert_close(measure(output, measure.target(output)), output)


def test_prediction(make_net, x):
    network = build(make_net, NeuralNetRegressor, nn.MSELoss, n_out=1)
    measure = resolve_measurement("auto", network)
    assert (measure.name, measure.needs_y) == ("prediction", False)
    output = network.forward(x)
    assert measure.target(output) is None
    torch.testing.assert_close(measure(output), output[:, 0])
    several = build(make_net, NeuralNetRegressor, nn.MSELoss)
    output = several.forward(x)
    with pytest.raises(ValueError, match="name the one to attribute"):
        resolve_measurement("auto", several)(output)
    for index in (0, 2, np.int64(1), (1,)):
        want = output[:, index[0] if isinstance(index, tuple) else index]
        torch.testing.assert_close(resolve_measurement("prediction", several, index)(output), want)
    for index in (3, -1, (0, 0)):
        with pytest.raises(ValueError, match="to index a row's outputs"):
            resolve_measurement("prediction", several, index)(output)
    positions = output.reshape(N, 3, 1)
    torch.testing.assert_close(resolve_measurement("prediction", several, (2, 0))(positions), output[:, 2])


def test_neg_loss(make_net, x):
    network = build(make_net, NeuralNetRegressor, nn.MSELoss, n_out=1)
    measure = resolve_measurement("neg_loss", network)
    assert measure.needs_y
    output, y = network.forward(x), torch.ones(N, 1, dtype=torch.float64)
    torch.testing.assert_close(measure(output, measure.target(output, y)), -((output - 1)[:, 0] ** 2))
    with pytest.raises(ValueError, match="needs the targets of the query rows"):
        measure.target(output)


@pytest.mark.parametrize(
    ("cls", "criterion", "n_out"),
    [
        (NeuralNetClassifier, nn.CrossEntropyLoss, C),
        (NeuralNetClassifier, nn.MultiMarginLoss, C),
        (NeuralNetBinaryClassifier, nn.BCEWithLogitsLoss, 1),
        (NeuralNet, nn.BCEWithLogitsLoss, C),
    ],
)
def test_neg_loss_of_a_classifier_defaults_to_the_predicted_class(make_net, x, cls, criterion, n_out):
    network = build(make_net, cls, criterion, n_out=n_out)
    measure = resolve_measurement("neg_loss", network)
    assert not measure.needs_y
    output = network.forward(x)
    target = measure.target(output)
    expected = output.argmax(1) if criterion is not nn.BCEWithLogitsLoss else (output > 0).double()
    assert torch.equal(target, expected)
    torch.testing.assert_close(measure(output, target), -network.row_loss(output, expected))


def test_callables(make_net, x):
    network = build(make_net, NeuralNetClassifier, nn.CrossEntropyLoss)
    output = network.forward(x)
    measure = resolve_measurement(norm, network)
    assert (measure.name, measure.needs_y) == ("norm", False)
    torch.testing.assert_close(measure(output, measure.target(output)), output.norm(dim=1))
    measure = resolve_measurement(with_target, network)
    assert measure.needs_y
    with pytest.raises(ValueError, match="with_target"):
        measure.target(output)
    y = torch.zeros(N, dtype=torch.int64)
    torch.testing.assert_close(measure(output, measure.target(output, y)), output[:, 0])
    for wrong in (lambda o, t: o, lambda o, t: o.sum(), lambda o, t: 1.0):
        with pytest.raises(ValueError, match=r"shape \(batch,\)"):
            resolve_measurement(wrong, network)(output, None)
    assert resolve_measurement(measure, network) is measure


@pytest.mark.parametrize(
    ("cls", "criterion", "measurement", "output", "match"),
    [
        (NeuralNetRegressor, nn.MSELoss, "log_odds", None, "needs a classifier"),
        (NeuralNetClassifier, nn.MultiMarginLoss, "auto", None, "pass a callable"),
        (NeuralNetRegressor, nn.MSELoss, "loss", None, "expected measurement to be one of"),
        (NeuralNetRegressor, nn.MSELoss, None, None, "expected measurement to be one of"),
        (NeuralNetClassifier, nn.CrossEntropyLoss, "log_odds", 1, "has no meaning"),
    ],
)
def test_measurements_that_cannot_be(make_net, cls, criterion, measurement, output, match):
    with pytest.raises(ValueError, match=match):
        resolve_measurement(measurement, build(make_net, cls, criterion), output)


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (torch.tensor([0, 1, 2, 3, 0, 0]), r"labels in 0\.\.2, got 0 to 3"),
        (torch.tensor([0, -1, 2, 0, 0, 0]), r"got -1 to 2"),
        (torch.rand(N, C), "integer class label"),
        (torch.zeros(N, 2, dtype=torch.int64), "one label per row"),
    ],
)
def test_labels_of_queries(make_net, x, y, match):
    network = build(make_net, NeuralNetClassifier, nn.CrossEntropyLoss)
    measure = resolve_measurement("log_odds", network)
    with pytest.raises(ValueError, match=match):
        measure.target(network.forward(x), y)


def test_outputs_without_log_odds(make_net, x):
    multi = build(make_net, NeuralNet, nn.BCEWithLogitsLoss)
    output = multi.forward(x)
    with pytest.raises(ValueError, match="multi-label"):
        resolve_measurement("log_odds", multi)(output, output)
    network = build(make_net, NeuralNetClassifier, nn.CrossEntropyLoss)
    with pytest.raises(ValueError, match="n_classes >= 2"):
        resolve_measurement("log_odds", network)(torch.ones(N, 1), torch.zeros(N, dtype=torch.int64))


def test_measurements_travel(make_net, x):
    network = build(make_net, NeuralNetClassifier, nn.CrossEntropyLoss)
    measure = resolve_measurement("auto", network)
    again = pickle.loads(pickle.dumps(measure))
    assert isinstance(again, Measurement)
    output = network.forward(x)
    torch.testing.assert_close(again(output, again.target(output)), measure(output, measure.target(output)))
