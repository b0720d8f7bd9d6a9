"""What is measured on a query, against the reference's definitions, through whole methods."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn

from sklearn_source import GradientSimilarity, InfluenceFunctions, SourceAttribution, TrajectoryRecorder
from tests._methods import apart
from tests.attribution._runs import STEPS, as_double, relative
from tests.reference import (
    block_factors,
    influence_scores,
    log_odds,
    log_odds_binary,
    log_odds_probabilities,
    neg_loss,
    prediction,
    row_gradients,
    softmax_columns,
    source_scores,
)


def second_over_first(output, target):
    return output[:, 1] / (2 + output[:, 0] ** 2)


def margin(output, target):
    return output.gather(1, target[:, None])[:, 0] - output.mean(1)


margin.needs_y = True

cross_entropy = nn.functional.cross_entropy
# name: (kind, parameters, whether y is given, the reference's measurement)
CASES = {
    "log_odds of the class predicted": ("mlp", {}, False, log_odds),
    "log_odds of the class given": ("mlp", {"measurement": "log_odds"}, True, log_odds),
    "log_odds, images": ("conv", {}, True, log_odds),
    "one of several outputs": ("mlp", {"measurement": "prediction", "output": 2}, False, prediction(2)),
    "the only output": ("regressor", {}, False, prediction()),
    "neg_loss of the class predicted": (
        "mlp",
        {"measurement": "neg_loss"},
        False,
        neg_loss(cross_entropy),
    ),
    "neg_loss of the class given": ("mlp", {"measurement": "neg_loss"}, True, neg_loss(cross_entropy)),
    "neg_loss of a regressor": ("regressor", {"measurement": "neg_loss"}, True, neg_loss(nn.functional.mse_loss)),
    "a callable": ("mlp", {"measurement": second_over_first}, False, lambda z, y: second_over_first(z, y)[0]),
    "a callable with targets": ("mlp", {"measurement": margin}, True, lambda z, y: margin(z, y)[0]),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_measurements(name, dtype, run):
    kind, options, given, measurement = CASES[name]
    r = run(kind, dtype, momentum=0.5)
    y = as_double(r.y_query) if given else r.query_target()
    q = r.queries(measurement=measurement, y=y)
    tolerance = 1e-4 if dtype == "float32" else 1e-7
    method = InfluenceFunctions(curvature="identity", damping=0.0, **options).fit(r.net, r.X, r.y)
    found = method.transform(r.X_query, r.y_query if given else None)
    assert relative(found, -q @ r.gradients(STEPS).T / len(r.X)) < tolerance
    source = SourceAttribution(n_segments=2, curvature=apart(), **options).fit(r.net, r.X, r.y)
    found = source.transform(r.X_query, r.y_query if given else None)
    assert relative(found, source_scores([r.segment(0, 12), r.segment(12, 24)], q)) < tolerance


def trained(cls, module, X, y):
    torch.manual_seed(0)
    return cls(
        module, lr=0.2, batch_size=5, max_epochs=6, train_split=None, verbose=0, callbacks=[TrajectoryRecorder()]
    ).fit(X, y)  # fmt: skip


def test_a_binary_classifier_with_one_logit():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(15, 3)), (rng.random(15) > 0.4).astype(np.float64)
    net = trained(NeuralNetBinaryClassifier, nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double(), X, y)
    module = net.module_.eval()
    params = {name: p.detach() for name, p in module.named_parameters()}
    X_query = rng.normal(size=(6, 3))
    with torch.no_grad():
        predicted = (module(torch.from_numpy(X_query))[:, 0] > 0).double()
    assert 0 < predicted.mean() < 1

    def loss(output, target):
        return nn.functional.binary_cross_entropy_with_logits(output.reshape(-1), target.reshape(-1))

    g, _ = row_gradients(module, params, loss, torch.from_numpy(X), torch.from_numpy(y))
    for target in (predicted, 1 - predicted):
        q, _ = row_gradients(module, params, log_odds_binary, torch.from_numpy(X_query), target)
        method = GradientSimilarity(metric="dot").fit(net, X, y)
        assert relative(method.transform(X_query, target.numpy()), -q @ g.T) < 1e-6
        if target is predicted:
            assert relative(method.transform(X_query), -q @ g.T) < 1e-6


def test_a_classifier_that_ends_in_softmax_as_skorch_has_it():
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(15, 3)), rng.integers(3, size=15)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3), nn.Softmax(-1)).double()
    net = trained(NeuralNetClassifier, module, X, y)
    module = net.module_.eval()
    params = {name: p.detach() for name, p in module.named_parameters()}
    X_query = rng.normal(size=(4, 3))
    predicted = torch.from_numpy(net.predict(X_query))
    q, _ = row_gradients(module, params, log_odds_probabilities, torch.from_numpy(X_query), predicted)
    logits = module[:3].eval()
    z, _ = row_gradients(logits, params, log_odds, torch.from_numpy(X_query), predicted)
    torch.testing.assert_close(q, z)  # the margin is the same whichever way the network ends
    g, _ = row_gradients(logits, params, nn.functional.cross_entropy, torch.from_numpy(X), torch.from_numpy(y))
    method = GradientSimilarity(metric="dot").fit(net, X, y)
    assert relative(method.transform(X_query), -q @ g.T) < 1e-6
    blocks = block_factors(logits, [(params, 1.0)], softmax_columns, torch.from_numpy(X))
    found = InfluenceFunctions(damping=0.02, curvature=apart()).fit(net, X, y).transform(X_query)
    assert relative(found, influence_scores(blocks, q, g, 0.02)) < 1e-6


def test_what_cannot_be_measured_is_said(run):
    r = run("regressor", momentum=0.5)
    with pytest.raises(ValueError, match="pass y of the queries"):
        GradientSimilarity(measurement="neg_loss").fit(r.net, r.X, r.y).transform(r.X_query)
    with pytest.raises(ValueError, match="needs a classifier"):
        GradientSimilarity(measurement="log_odds").fit(r.net, r.X, r.y)
    with pytest.raises(ValueError, match="output"):
        GradientSimilarity(output=1).fit(r.net, r.X, r.y).transform(r.X_query)
    r = run("mlp", momentum=0.5)
    with pytest.raises(ValueError, match="output=0"):
        GradientSimilarity(measurement="prediction").fit(r.net, r.X, r.y).transform(r.X_query)
    with pytest.raises(ValueError, match="pass y"):
        GradientSimilarity(measurement=margin).fit(r.net, r.X, r.y).transform(r.X_query)
