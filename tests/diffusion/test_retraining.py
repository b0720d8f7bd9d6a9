"""Retraining diffusion models: both engines train what skorch trains, and all are measured alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sklearn_source import AttributionEnsemble, InfluenceFunctions
from sklearn_source.diffusion import DenoisingLoss
from sklearn_source.metrics import linear_datamodeling_score
from sklearn_source.modules import UNet
from sklearn_source.network import Network
from sklearn_source.retraining import leave_one_out, retrain_on_subsets
from sklearn_source.retraining._reader import Reader
from tests._diffusion_nets import rows, small_net


@pytest.fixture
def trained(monkeypatch):
    """The nets that are read, in their order."""
    nets, read = [], Reader.read_trained
    monkeypatch.setattr(Reader, "read_trained", lambda self, net, *given: nets.append(net) or read(self, net, *given))
    return nets


def by_hand(net, queries, grid):
    """Minus the mean squared error over a grid, one example at a time."""
    network, values = Network.from_net(net), []
    for query in queries:
        inputs, target = network.prepare(query[None], draws=grid.draws(net)).batch([0])
        with torch.no_grad():
            output = net.module_(inputs["sample"][0], inputs["timestep"][0])
        values.append(-float((output - target[0]).square().mean()))
    return values


@pytest.mark.parametrize("measurement", ["auto", DenoisingLoss(4, 2, timesteps=(10, 20))])
def test_what_is_read_is_the_loss_on_the_grid(measurement, trained):
    X, queries = rows(), rows(3, seed=1)
    settings = {"n_subsets": 2, "n_repeats": 2, "random_state": 0, "engine": "joblib", "measurement": measurement}
    truth = retrain_on_subsets(small_net(), X, None, queries, **settings)
    grid = DenoisingLoss() if measurement == "auto" else measurement
    expected = np.reshape([by_hand(net, queries, grid) for net in trained], (2, 2, 3))
    np.testing.assert_allclose(truth.outputs, expected, rtol=1e-5)
    assert len({net.draw_seed_ for net in trained}) == 4  # each training draws its own
    again = retrain_on_subsets(small_net(), X, None, queries, **settings)
    np.testing.assert_array_equal(truth.outputs, again.outputs)


@pytest.mark.parametrize(("options", "paired"), [({}, True), ({"conditional": True, "module__n_classes": 2}, False)])
def test_engines_agree(options, paired):
    X, queries = rows(), rows(3, seed=1)
    y, y_query = (np.arange(12) % 2, np.arange(3) % 2) if "conditional" in options else (None, None)
    net, settings = small_net(**options), {"random_state": 0, "n_repeats": 2}
    settings.update({"rows": [1, 5]} if paired else {"n_subsets": 3})
    retrain = leave_one_out if paired else retrain_on_subsets
    one, many = (retrain(net, X, y, queries, y_query, engine=e, **settings) for e in ("joblib", "vectorized"))
    np.testing.assert_allclose(one.outputs, many.outputs, rtol=1e-4)
    assert np.ptp(one.outputs, axis=0).min() > 1e-4
    assert many.settings["engine"] == "vectorized"


@pytest.mark.slow
def test_scores_meet_their_truth():
    """The chain from training to score; exact curvature of a small model foretells halves better than chance."""
    X, queries = rows(16), rows(4, seed=1)
    net = small_net(X, max_epochs=30)
    truth = retrain_on_subsets(net, X, None, queries, n_subsets=30, n_repeats=2, random_state=0)
    scores = InfluenceFunctions(damping="trajectory", random_state=0).fit(net, X).transform(queries)
    assert linear_datamodeling_score(scores, truth).score > 0.2


def test_convolutions_are_trained_one_by_one_and_ensembles_work():
    X = np.random.default_rng(0).normal(size=(6, 1, 4, 4)).astype(np.float32)
    net = small_net(module=UNet, module__channels=(4,), max_epochs=1)
    truth = retrain_on_subsets(net, X, None, X[:2], n_subsets=2, n_repeats=1, random_state=0)
    assert truth.settings["engine"] == "joblib"
    ensemble = AttributionEnsemble(InfluenceFunctions(), n_members=2, random_state=0)
    assert ensemble.fit(small_net(rows()), rows()).transform(rows(2, seed=1)).shape == (2, 12)
