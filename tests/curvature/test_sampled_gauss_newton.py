"""The whole matrix on its Fisher columns, solved through inner products: against the one that forms it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from torch import nn
from torch.optim import SGD, Adam, AdamW

from sklearn_source import InfluenceFunctions, SnapshotInfluence, SourceAttribution, TrajectoryRecorder
from sklearn_source.curvature import ExactGaussNewton
from sklearn_source.curvature._sampled_gauss_newton import SampledGaussNewton
from sklearn_source.gradients.algebra import Indexed, pairs_pay
from tests.attribution._runs import relative
from tests.attribution.test_reweighting import deep

EVERY = 10**6


@pytest.mark.parametrize("optimizer", [SGD, AdamW, Adam], ids=lambda o: o.__name__)
@pytest.mark.parametrize("method", [SourceAttribution, InfluenceFunctions])
def test_all_columns_are_the_whole_matrix(method, optimizer):
    net, X, y, X_query = deep(optimizer, lr=0.02, optimizer__weight_decay=0.1)
    whole = method(curvature="exact").fit(net, X, y).transform(X_query)
    if method is SourceAttribution and optimizer is Adam:
        with pytest.raises(ValueError, match="no functions but the inverse"):
            method(curvature=ExactGaussNewton(max_rows=EVERY)).fit(net, X, y).transform(X_query)
        return
    assert relative(method(curvature=ExactGaussNewton(max_rows=EVERY)).fit(net, X, y).transform(X_query), whole) < 1e-5


def test_rates_of_their_own_and_a_sample():
    groups = [("0.*", {"lr": 0.1}), ("2.*", {"weight_decay": 0.2})]
    net, X, y, X_query = deep(SGD, lr=0.3, optimizer__param_groups=groups)
    whole = InfluenceFunctions(curvature="exact").fit(net, X, y).transform(X_query)
    sampled = InfluenceFunctions(curvature=ExactGaussNewton(max_rows=EVERY)).fit(net, X, y)
    assert relative(sampled.transform(X_query), whole) < 1e-5
    few = InfluenceFunctions(curvature=ExactGaussNewton(max_rows=20)).fit(net, X, y).transform(X_query)
    assert 1e-4 < relative(few, whole) < 0.7
    with pytest.raises(ValueError, match="pass damping > 0"):
        InfluenceFunctions(curvature=ExactGaussNewton(max_rows=20), damping=0.0).fit(net, X, y).transform(X_query)


def test_a_damping_that_rounding_drowns_is_told():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 10)).astype(np.float32), np.arange(200) % 3
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        nn.Linear(10, 3), criterion=nn.CrossEntropyLoss, lr=0.5, max_epochs=2, train_split=None, verbose=0
    ).fit(X, y)
    est = InfluenceFunctions(curvature=ExactGaussNewton(max_rows=300), damping=1e-12, random_state=0).fit(net, X, y)
    with pytest.raises(ValueError, match="pass a larger damping"):
        est.transform(X[:2])


def test_targets_that_are_drawn_give_scores_of_the_right_size():
    """Eighteen classes, whose exact matrix is there to compare; one draw a row, as it is, gives five times too much."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 12)), np.arange(60) % 18
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        nn.Linear(12, 18, dtype=torch.float64), criterion=nn.CrossEntropyLoss, lr=0.5, batch_size=-1,
        max_epochs=10, train_split=None, verbose=0,
    ).fit(X, y)  # fmt: skip

    def scores(**options):
        est = InfluenceFunctions(curvature=ExactGaussNewton(**options), damping=0.01, random_state=0)
        return est.fit(net, X, y).transform(X[:10])

    def size(found):
        return float((found * whole).sum() / (whole**2).sum())

    whole = scores(fisher="exact")
    once = scores(fisher="sampled")
    few, many = scores(fisher="sampled", max_rows=60), scores(fisher="sampled", max_rows=600)
    assert size(once) > 2 * size(few)
    assert 0.8 < size(many) < 1.25
    assert relative(many, whole) < relative(few, whole) < 1 < relative(once, whole)


@pytest.mark.parametrize("optimizer", [SGD, AdamW], ids=lambda o: o.__name__)
def test_every_segment_is_that_of_the_whole_matrix(optimizer):
    net, X, y, X_query = deep(optimizer, lr=0.02, optimizer__weight_decay=0.1)
    whole, all_columns = (
        SourceAttribution(n_segments=3, curvature=curvature).fit(net, X, y).transform(X_query)
        for curvature in ("exact", ExactGaussNewton(max_rows=EVERY))
    )
    assert relative(all_columns, whole) < 1e-5


@pytest.mark.parametrize("n_segments", [1, 2])
def test_functions_of_a_sample_have_the_size_of_the_whole(n_segments):
    """Drawn targets leave directions without curvature: taken as they are, scores come out by two thirds too large."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 24)), np.arange(60) % 4
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        nn.Linear(24, 4, dtype=torch.float64), criterion=nn.CrossEntropyLoss, lr=0.5, batch_size=-1, max_epochs=30,
        train_split=None, verbose=0, callbacks=[TrajectoryRecorder(n_checkpoints=n_segments)],
    ).fit(X, y)  # fmt: skip

    def scores(**options):
        curvature = ExactGaussNewton(**options)
        est = SourceAttribution(n_segments=n_segments, curvature=curvature, random_state=0)
        return est.fit(net, X, y).transform(X[:10])

    def size(found):
        return float((found * whole).sum() / (whole**2).sum())

    whole, once = scores(fisher="exact"), scores(fisher="sampled")
    few, many = (scores(fisher="sampled", max_rows=columns) for columns in (240, 480))
    assert size(once) > 1.5
    assert 0.85 < size(few) < 1.15
    assert 0.9 < size(many) < 1.1
    assert relative(many, whole) < 0.9 * relative(few, whole) < 0.5 * relative(once, whole)


@pytest.fixture(scope="module")
def wide():
    """Layers of which outer products are far fewer numbers than matrices, each at a rate of its own."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 40)), rng.integers(0, 3, 60)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 3)).double()
    net = NeuralNetClassifier(
        module, criterion=nn.CrossEntropyLoss, lr=0.3, batch_size=-1, max_epochs=10, train_split=None, verbose=0,
        optimizer__param_groups=[("0.*", {"lr": 0.1})], callbacks=[TrajectoryRecorder(n_checkpoints=2)],
    ).fit(X, y)  # fmt: skip
    return net, X, y


@pytest.mark.parametrize("method", [InfluenceFunctions, SnapshotInfluence])
def test_outer_products_give_what_matrices_give(wide, monkeypatch, tmp_path, method):
    net, X, y = wide
    est = method(curvature=ExactGaussNewton(max_rows=30), measurement="neg_loss").fit(net, X, y)
    made, combination = [], SampledGaussNewton.combination

    def noted(*args):
        made.append(combination(*args) is not None)
        return combination(*args)

    with monkeypatch.context() as patch:
        patch.setattr(SampledGaussNewton, "combination", noted)
        together, own = est.transform(X, y), est.self_influence()
        assert made
        assert all(made)
        patch.setattr(SampledGaussNewton, "combination", lambda *_: None)
        apart = est.transform(X, y)
    # Scores are float32.
    assert relative(together, apart) < 1e-6
    np.testing.assert_allclose(own, np.diag(apart), rtol=1e-5)
    one = est.transform(X[:1], y[:1])  # for one query matrices are less work
    assert relative(one, apart[:1]) < 1e-6
    stored = est.store_gradients(tmp_path, tol=None).transform(X, y)
    assert relative(stored, apart) < 1e-6


def test_columns_of_an_embedding_are_not_all_made_matrices():
    """Rows that are their own queries are few: apart is then less work, but a matrix for every column is no memory."""
    tokens = torch.arange(12).reshape(6, 2)
    columns, vectors = (Indexed(tokens, torch.ones(6, 2, 3), 1000) for _ in range(2))
    work = [[columns, vectors]], 6, 6, 6
    n_bytes = 12 * columns.matrix()[0].numel() * 4
    assert pairs_pay(*work, n_bytes)
    assert not pairs_pay(*work, n_bytes - 1)
