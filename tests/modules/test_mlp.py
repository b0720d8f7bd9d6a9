"""The network of the examples: shapes, lazy width, and life inside a skorch net."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklearn_source.modules import MLP


def _linear_layers(module):
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


def test_default_is_three_hidden_layers_of_128():
    layers = _linear_layers(MLP(n_features=8))
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(8, 128), (128, 128), (128, 128), (128, 1)]


def test_forward_is_the_written_out_network():
    module = MLP(n_features=3, hidden=(5,), n_outputs=2, activation=nn.Tanh)
    first, last = _linear_layers(module)
    X = torch.randn(4, 3)
    expected = torch.tanh(X @ first.weight.T + first.bias) @ last.weight.T + last.bias
    torch.testing.assert_close(module(X), expected)


def test_lazy_width_is_read_from_the_first_batch():
    module = MLP(hidden=(4,))
    module(torch.zeros(2, 7))
    assert _linear_layers(module)[0].in_features == 7


def test_no_hidden_layer_is_a_linear_model():
    assert len(_linear_layers(MLP(n_features=3, hidden=()))) == 1
    assert MLP(hidden=())(torch.zeros(2, 3)).shape == (2, 1)


def test_squeeze_and_softmax():
    X = torch.randn(6, 3)
    assert MLP(hidden=(4,), squeeze=True)(X).shape == (6,)
    probabilities = MLP(hidden=(4,), n_outputs=3, softmax=True)(X)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(6))
    assert (probabilities >= 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"squeeze": True, "n_outputs": 2}, "one output for squeeze=True"),
        ({"softmax": True}, "an output per class, at least 2"),
    ],
)
def test_contradictions_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLP(**arguments)


@pytest.mark.parametrize("n_features", [3, 9])
def test_one_regressor_definition_fits_any_width(n_features):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(256, n_features)).astype(np.float32)
    y = (X @ rng.normal(size=(n_features, 1))).astype(np.float32)
    torch.manual_seed(0)
    net = NeuralNetRegressor(
        MLP, module__hidden=(32,), lr=0.05, max_epochs=40, batch_size=32, train_split=None, verbose=0
    ).fit(X, y)
    assert net.predict(X).shape == (256, 1)
    assert net.score(X, y) > 0.9


def test_classifier_with_skorch_default_criterion():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(256, 4)).astype(np.float32)
    y = (X[:, 0] > 0).astype(np.int64)
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        MLP,
        module__hidden=(16,),
        module__n_outputs=2,
        module__softmax=True,
        lr=0.5,
        max_epochs=30,
        batch_size=32,
        train_split=None,
        verbose=0,
    ).fit(X, y)
    assert net.score(X, y) > 0.9
