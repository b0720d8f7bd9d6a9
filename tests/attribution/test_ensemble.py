"""Ensembles over networks: means of members, what they say of their certainty, and the nets they are made of."""

from __future__ import annotations

import pickle

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import LRScheduler
from torch import nn
from torch.optim.lr_scheduler import StepLR

from sklearn_source import (
    AttributionEnsemble,
    GradientSimilarity,
    InfluenceFunctions,
    RepresentationSimilarity,
    SnapshotInfluence,
    SourceAttribution,
    TracIn,
    TrajectoryRecorder,
)
from sklearn_source.inspection import InfluenceDisplay, group_influence
from sklearn_source.modules import MLP
from sklearn_source.network import train_clone
from sklearn_source.utils._compat import FrozenEstimator
from sklearn_source.utils._random import draw_seeds, seeded
from sklearn_source.utils.estimator_checks import check_attribution_estimator

OPTIONS = {"lr": 0.1, "max_epochs": 4, "batch_size": 8, "train_split": None, "verbose": 0}


def classification():
    rng = np.random.default_rng(0)
    X, X_query = (rng.normal(size=(n, 3)).astype(np.float32) for n in (24, 30))
    return X, rng.integers(0, 3, 24), X_query


def classifier(seed=0, n_checkpoints=4, **options):
    net = NeuralNetClassifier(
        MLP, module__n_features=3, module__hidden=(5,), module__n_outputs=3, criterion=nn.CrossEntropyLoss,
        callbacks=[TrajectoryRecorder(n_checkpoints)], **{**OPTIONS, **options},
    )  # fmt: skip
    with seeded(seed):
        return net.fit(*classification()[:2])


def regressor():
    X, _, _ = classification()
    net = NeuralNetRegressor(MLP, module__n_features=3, module__hidden=(5,), **OPTIONS)
    with seeded(0):
        return net.fit(X, X[:, :1])


METHODS = {
    "source": SourceAttribution(random_state=0),
    "influence": InfluenceFunctions(random_state=0),
    "tracin": TracIn(),
    "gradients": GradientSimilarity(),
    "representations": RepresentationSimilarity(),
}


@pytest.mark.parametrize("name", METHODS)
def test_the_mean_of_methods_fitted_one_by_one(name):
    X, y, X_query = classification()
    nets = [classifier(seed) for seed in range(3)]
    ensemble = AttributionEnsemble(METHODS[name], nets=nets[1:]).fit(nets[0], X, y)
    each = [clone(METHODS[name]).fit(net, X, y) for net in nets]
    y_query = nets[0].predict(X_query)
    assert (y_query != nets[1].predict(X_query)).any()  # what is asked makes a difference
    if name != "representations":  # which take no targets
        expected = np.stack([est.transform(X_query, y_query) for est in each]).astype(np.float64)
        np.testing.assert_allclose(ensemble.transform(X_query), expected.mean(axis=0), rtol=1e-4, atol=1e-6)
        error = expected.std(axis=0, ddof=1) / 3**0.5
        np.testing.assert_allclose(ensemble.score_error(X_query), error, rtol=1e-4, atol=1e-6)
    expected = np.mean([est.self_influence() for est in each], axis=0)
    np.testing.assert_allclose(ensemble.self_influence(), expected, rtol=1e-5, atol=1e-7)
    top = ensemble.top_influences(X_query, k=3)
    scores = ensemble.transform(X_query)
    np.testing.assert_array_equal(top.scores, -np.sort(-scores, axis=1)[:, :3])
    assert ensemble.has_unit == METHODS[name].has_unit


def test_queries_come_in_chunks(monkeypatch):
    X, y, X_query = classification()
    ensemble = AttributionEnsemble(GradientSimilarity(), nets=[classifier(1), classifier(2)]).fit(X, y)
    whole, error = ensemble.transform(X_query), ensemble.score_error(X_query)
    found = ensemble.stable_influences(X_query, alpha=0.05)
    asked = []
    monkeypatch.setattr("sklearn_source.attribution.ensemble._ensemble_base.bytes_for", lambda purpose: 8 * 24 * 7)
    for member in ensemble.members_:
        transform = member.transform
        member.transform = lambda X, y=None, transform=transform: (asked.append(len(X)), transform(X, y))[1]
    np.testing.assert_allclose(ensemble.transform(X_query), whole, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(ensemble.score_error(X_query), error, rtol=1e-4, atol=1e-6)
    chunked = ensemble.stable_influences(X_query, alpha=0.05)
    assert chunked.keys() == found.keys()
    for name in ("scores", "errors"):
        np.testing.assert_allclose(chunked[name], found[name], rtol=1e-4, atol=1e-6)
    assert 0 < found.stable.sum() < found.stable.size
    np.testing.assert_array_equal(chunked.stable, found.stable)
    assert 1 < max(asked) <= 7
    assert sum(asked) == 3 * len(ensemble.members_) * 30


def test_fresh_members_are_seeded_one_by_one():
    X, y, X_query = classification()
    net = classifier()
    before = [p.detach().clone() for p in net.module_.parameters()]
    state, history = torch.get_rng_state(), len(net.history)
    few, more = (AttributionEnsemble(n_members=n, random_state=3).fit(net, X, y) for n in (2, 3))
    assert torch.equal(state, torch.get_rng_state())
    assert len(net.history) == history
    assert all(torch.equal(a, b) for a, b in zip(before, net.module_.parameters()))
    assert few.members_[0].net_ is net
    np.testing.assert_array_equal(few.members_[1].transform(X_query, y[:1].repeat(30)),
                                  more.members_[1].transform(X_query, y[:1].repeat(30)))  # fmt: skip
    weights = [next(est.net_.module_.parameters()) for est in more.members_]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
    assert len(more.members_[2].net_.history) == OPTIONS["max_epochs"]


def tanh_mlp(n_outputs=1):
    return MLP(n_features=3, hidden=(5,), n_outputs=n_outputs, activation=nn.Tanh).double()


RECIPES = {
    "momentum": {"optimizer__momentum": 0.9, "optimizer__weight_decay": 0.01, "lr": 0.02},
    "AdamW": {"optimizer": torch.optim.AdamW, "optimizer__weight_decay": 0.1, "lr": 0.02},
    "steps": {"optimizer__momentum": 0.5, "callbacks": [LRScheduler(StepLR, step_size=2, gamma=0.3)]},
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_members_are_those_that_skorch_trains(kind, recipe):
    """Trained at once or in turn: the scores of the method on the network that ``net.fit`` makes of a member's seed."""
    X, y, X_query = classification()
    X, X_query, options = X.astype(np.float64), X_query.astype(np.float64), {**OPTIONS, **RECIPES[recipe]}
    if kind == "regression":
        net, y = NeuralNetRegressor(tanh_mlp, **options), X[:, :1]
    else:
        net = NeuralNetClassifier(tanh_mlp, module__n_outputs=3, criterion=nn.CrossEntropyLoss, **options)
    method = SourceAttribution(n_segments=2)
    ensemble = AttributionEnsemble(clone(method).set_params(net=net), n_members=2, random_state=5).fit(X, y)
    seeds = draw_seeds(5, 2)
    given = (X_query, None if kind == "regression" else np.zeros(30, dtype=int))
    for seed, member in zip(seeds, ensemble.members_, strict=True):
        own, _, _ = train_clone(net, X, y, seed=int(seed), recorder=TrajectoryRecorder())
        expected = clone(method).set_params(random_state=int(seed)).fit(own, X, y).transform(*given)
        found = member.transform(*given)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7 * np.abs(expected).max())


@pytest.mark.parametrize("frozen", [True, False])
def test_a_net_in_the_constructor(frozen):
    X, y, X_query = classification()
    net = classifier() if frozen else NeuralNetClassifier(
        MLP, module__n_features=3, module__hidden=(5,), module__n_outputs=3, criterion=nn.CrossEntropyLoss, **OPTIONS
    )  # fmt: skip
    given = FrozenEstimator(net) if frozen else net
    ensemble = AttributionEnsemble(SourceAttribution(given), n_members=2, random_state=0).fit(X, y)
    assert (ensemble.members_[0].net_ is net) == frozen
    assert ensemble.transform(X_query).shape == (30, 24)
    assert len(ensemble.members_) == 2


def test_snapshots_are_trainings_that_ended_there():
    """Against the estimator that averages influence functions over snapshots itself."""
    X, y, X_query = classification()
    net = classifier(n_checkpoints=None, optimizer__momentum=0.5, optimizer__weight_decay=0.01)
    method = InfluenceFunctions(damping="trajectory")
    ensemble = AttributionEnsemble(method, members="snapshots", n_members=4).fit(net, X, y)
    alone = SnapshotInfluence(n_snapshots=4).fit(net, X, y)
    np.testing.assert_allclose(ensemble.transform(X_query), alone.transform(X_query), rtol=1e-4, atol=1e-6)
    groups = [[0, 1], [5]]
    np.testing.assert_allclose(
        ensemble.predict_reweighting(X_query, groups=groups), alone.predict_reweighting(X_query, groups=groups),
        rtol=1e-4, atol=1e-6,
    )  # fmt: skip
    y_train = np.where(np.arange(len(y)) < 3, (y + 1) % 3, y)
    np.testing.assert_allclose(
        ensemble.predict_relabeling(X_query, y_train=y_train), alone.predict_relabeling(X_query, y_train=y_train),
        rtol=1e-4, atol=1e-6,
    )  # fmt: skip
    source = AttributionEnsemble(SourceAttribution(), members="snapshots", n_members=4).fit(net, X, y)
    assert [est.trajectory_.n_steps for est in source.members_] == [3, 6, 9, 12]


def test_stable_influences_are_those_of_a_t_test():
    X, y, X_query = classification()
    ensemble = AttributionEnsemble(GradientSimilarity(), nets=[classifier(s) for s in range(5)]).fit(X, y)
    y_query = np.zeros(30, dtype=int)
    each = np.stack([est.transform(X_query, y_query) for est in ensemble.members_]).astype(np.float64)
    found = ensemble.stable_influences(X_query, y_query, alpha=0.04)
    np.testing.assert_allclose(found.p_values, stats.ttest_1samp(each, 0.0).pvalue, rtol=1e-6)
    assert 0 < found.stable.sum() < found.stable.size
    for p, stable in zip(found.p_values, found.stable):  # by the definition: the largest k with p_(k) <= alpha k / n
        order = np.argsort(p)
        passing = [k for k in range(1, len(p) + 1) if p[order[k - 1]] <= 0.04 * k / len(p)]
        assert set(np.flatnonzero(stable)) == set(order[: max(passing, default=0)])


def test_it_is_picklable_and_clonable():
    X, y, X_query = classification()
    ensemble = AttributionEnsemble(nets=[classifier(0), classifier(1)]).fit(X, y)
    again = pickle.loads(pickle.dumps(ensemble))
    np.testing.assert_array_equal(again.transform(X_query), ensemble.transform(X_query))
    assert not hasattr(clone(ensemble), "members_")
    ensemble.set_params(estimator=GradientSimilarity(), estimator__metric="dot")
    assert not ensemble.has_unit


def test_misuse_is_said():
    X, y, X_query = classification()
    net = classifier()
    one = AttributionEnsemble(n_members=1).fit(net, X, y)
    with pytest.raises(ValueError, match="two members or more"):
        one.score_error(X_query)
    with pytest.raises(ValueError, match="alpha to be a number between 0 and 1"):
        one.stable_influences(X_query, alpha=5)
    staged = classifier().partial_fit(X, y)
    with pytest.raises(ValueError, match="history has 8 epochs, and max_epochs is 4"):
        AttributionEnsemble(n_members=2).fit(staged, X, y)
    with pytest.raises(ValueError, match="no network"):
        AttributionEnsemble().fit(X, y)
    with pytest.raises(ValueError, match="got both"):
        AttributionEnsemble(members="snapshots", nets=[net]).fit(net, X, y)
    with pytest.raises(ValueError, match="at least 9 checkpoints"):
        AttributionEnsemble(members="snapshots", n_members=9).fit(net, X, y)
    with pytest.warns(UserWarning, match="some members have the same weights"):
        AttributionEnsemble(nets=[net]).fit(net, X, y)
    with pytest.raises(ValueError, match="with a TrajectoryRecorder"):
        AttributionEnsemble(members="snapshots").fit(regressor(), X, X[:, :1])
    assert not hasattr(AttributionEnsemble(GradientSimilarity()), "members_")


# What members are made of and what the network predicts do not meet: `test_members_are_those_that_skorch_trains` has
# fresh ones of both kinds, and the mean over members is one code.
@pytest.mark.parametrize(("members", "task"), [("independent", "classification"), ("snapshots", "regression")])
def test_the_contract_of_attribution_methods(members, task):
    ensemble = AttributionEnsemble(InfluenceFunctions(), members=members, n_members=2, random_state=0)
    # Members that are trained meet the rows in the order given.
    allowed = {"check_attribution_permuted_rows": "trains"} if members == "independent" else {}
    check_attribution_estimator(ensemble, tasks=[task], expected_failed_checks=allowed)


def test_displays_audits_and_pipelines_take_an_ensemble():
    X, y, X_query = classification()
    net = classifier()
    ensemble = AttributionEnsemble(nets=[classifier(1)]).fit(net, X, y)
    display = InfluenceDisplay.from_estimator(ensemble, X_query, X_train=X, y_train=y, k=2)
    plt.close("all")
    assert list(display.supporting.indices) == list(ensemble.top_influences(X_query[:1], k=2).indices[0])
    summed = group_influence(ensemble, X_query, {"few": [0, 1]})
    scores = ensemble.transform(X_query)
    np.testing.assert_allclose(np.ravel(summed.influence), scores[:, :2].sum(axis=1), rtol=1e-4, atol=1e-6)
    frozen = AttributionEnsemble(InfluenceFunctions(FrozenEstimator(net)), nets=[classifier(1)])
    piped = make_pipeline(FunctionTransformer(), frozen).fit(X, y)
    np.testing.assert_array_equal(piped.transform(X_query), scores)
