"""Choosing by ground truth inside scikit-learn's own searches."""

from __future__ import annotations

import pickle
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from sklearn import model_selection
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    RandomizedSearchCV,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import Bunch

from sklearn_source import EmpiricalInfluence, InfluenceFunctions, RepresentationSimilarity, SourceAttribution
from sklearn_source.curvature import EKFAC, KFAC, Diagonal, Identity, _cache
from sklearn_source.metrics import linear_datamodeling_score
from sklearn_source.model_selection import FullTrainingSet, held_out_score, make_lds_scorer
from sklearn_source.retraining import Retraining, retrain_on_subsets
from tests._nets import make_net

N_TRAIN, N_QUERY = 40, 9


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N_TRAIN + N_QUERY, 3)).astype(np.float32)
    y = (X[:, :1] - np.sin(2 * X[:, 1:2]) + 0.1 * rng.normal(size=(len(X), 1))).astype(np.float32)
    X, y, X_query = X[:N_TRAIN], y[:N_TRAIN], X[N_TRAIN:]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = make_net(max_epochs=8).fit(X, y)
    truth = retrain_on_subsets(net, X, y, X_query, n_subsets=12, n_repeats=2, random_state=0)
    return Bunch(net=net, X=X, y=y, X_query=X_query, truth=truth)


class Columns(TransformerMixin, BaseEstimator):
    """Scores that are known beforehand: a row of a query's features, mixed with noise."""

    def __init__(self, noise=0.0):
        self.noise = noise

    def fit(self, X, y=None):
        self.rows_ = np.asarray(X)
        return self

    def transform(self, X):
        rng = np.random.default_rng(int(1000 * self.noise))
        scores = np.asarray(X, dtype=float)
        return scores + self.noise * rng.normal(size=scores.shape)


@pytest.fixture
def made_up():
    """Queries whose features are the effects of the training rows."""
    rng = np.random.default_rng(1)
    effects = rng.normal(size=(30, 20))
    masks = rng.random((25, 20)) < 0.5
    outputs = (masks @ effects.T)[:, None] + 2 * rng.normal(size=(25, 2, 30))
    return Bunch(truth=Bunch(masks=masks, outputs=outputs), X_query=effects, X=rng.normal(size=(20, 5)))


def of_queries(truth, queries):
    return Bunch(masks=truth.masks, outputs=truth.outputs[:, :, queries])


@pytest.mark.parametrize("n_splits", [1, 2, 3, 7])
def test_folds_are_disjoint_and_complete_and_fit_on_all_rows(made_up, n_splits):
    scorer, cv = make_lds_scorer(made_up.truth, made_up.X_query), FullTrainingSet(n_splits)
    seen = []

    class Spy(Columns):
        def transform(self, X):
            seen.append([int(np.flatnonzero((made_up.X_query == x).all(1))[0]) for x in X])
            return super().transform(X)

    splits = list(cv.split(made_up.X))
    assert len(splits) == cv.get_n_splits() == n_splits
    for train, test in splits:
        np.testing.assert_array_equal(train, np.arange(20))
        scorer(Spy().fit(made_up.X[train]), made_up.X[test])
    assert sorted(sum(seen, [])) == list(range(30))
    assert [list(scorer.fold(f, n_splits)) for f in range(n_splits)] == seen


def test_fold_scores_are_spearman_correlations_of_the_fold(made_up):
    scorer = make_lds_scorer(made_up.truth, made_up.X_query)
    found = cross_val_score(Columns(0.5), made_up.X, scoring=scorer, cv=FullTrainingSet(4), error_score="raise")
    scores = Columns(0.5)
    for f, value in enumerate(found):
        fold = scorer.fold(f, 4)
        tau = scores.transform(made_up.X_query[fold])
        rho = [
            spearmanr([row[m].sum() for m in made_up.truth.masks], made_up.truth.outputs[:, :, q].mean(1)).statistic
            for q, row in zip(fold, tau)
        ]
        assert value == pytest.approx(np.mean(rho), abs=1e-12)


@pytest.mark.parametrize("form", [np.asarray, pd.DataFrame, lambda X: [row.tolist() for row in X]])
def test_the_fold_is_recognised_in_any_rows(made_up, form):
    scorer, expected = make_lds_scorer(made_up.truth, made_up.X_query), []
    for f in range(3):
        fold = scorer.fold(f, 3)
        tau, truth = made_up.X_query[fold], of_queries(made_up.truth, fold)
        expected.append(linear_datamodeling_score(tau, truth, n_bootstrap=2).score)
    for X in (form(made_up.X), form(np.zeros((20, 5)))):  # rows that equal each other too
        found = cross_validate(Columns(), X, scoring=scorer, cv=FullTrainingSet(3), error_score="raise")
        np.testing.assert_allclose(found["test_score"], expected, atol=1e-12)


def test_text_rows_name_folds(made_up):
    scorer = make_lds_scorer(made_up.truth, made_up.X_query)
    texts = np.array([f"row {i}" for i in range(20)], dtype=object)
    numbers = cross_val_score(Columns(), made_up.X, scoring=scorer, cv=FullTrainingSet(3))
    words = cross_val_score(Columns(), texts, scoring=scorer, cv=FullTrainingSet(3), error_score="raise")
    np.testing.assert_array_equal(words, numbers)


def test_any_other_rows_mean_all_queries(made_up):
    scorer = make_lds_scorer(made_up.truth, made_up.X_query)
    est = Columns(0.3).fit(made_up.X)
    whole = linear_datamodeling_score(Columns(0.3).transform(made_up.X_query), made_up.truth).score
    assert scorer(est, made_up.X) == pytest.approx(whole)
    found = cross_validate(est, made_up.X, scoring=scorer, cv=FullTrainingSet(2), return_train_score=True)
    assert found["train_score"] == pytest.approx([whole, whole])


def test_queries_held_back(made_up):
    choose, report = np.arange(0, 30, 2), np.arange(30) % 2 == 1
    first = make_lds_scorer(made_up.truth, made_up.X_query, queries=choose)
    second = make_lds_scorer(made_up.truth, made_up.X_query, queries=report)
    assert sorted(np.concatenate([first.fold(f, 4) for f in range(4)])) == list(choose)
    est = Columns().fit(made_up.X)
    rest = np.flatnonzero(report)
    expected = linear_datamodeling_score(made_up.X_query[rest], of_queries(made_up.truth, rest)).score
    assert second(est, made_up.X) == pytest.approx(expected)


def test_truth_that_holds_its_queries(made_up):
    est = Columns().fit(made_up.X)
    whole = make_lds_scorer(made_up.truth, made_up.X_query)(est, made_up.X)
    holding = Bunch(**made_up.truth, X_query=made_up.X_query)
    assert make_lds_scorer(holding)(est, made_up.X) == whole
    with pytest.raises(ValueError, match="pass X_query"):
        make_lds_scorer(made_up.truth)


def test_metric_of_ones_own(made_up):
    def metric(scores, truth):
        return Bunch(score=float(len(scores) + truth.outputs.shape[2] + len(truth.X_query)))

    scorer = make_lds_scorer(made_up.truth, made_up.X_query, metric=metric, queries=[1, 5])
    assert scorer(Columns().fit(made_up.X), made_up.X) == 6
    assert not hasattr(made_up.truth, "X_query")


def test_held_out_score_against_a_loop(made_up):
    scorer = make_lds_scorer(made_up.truth, made_up.X_query)
    noises = [3 + 0.001 * i for i in range(20)]  # as good as each other: the best is so by chance
    search = GridSearchCV(Columns(), {"noise": noises}, scoring=scorer, cv=FullTrainingSet(6), error_score="raise")
    found = held_out_score(search.fit(made_up.X))
    table = np.array([[search.cv_results_[f"split{f}_test_score"][c] for c in range(20)] for f in range(6)])
    values, chosen = [], []
    for f in range(6):
        means = [np.mean([table[g, c] for g in range(6) if g != f]) for c in range(20)]
        values.append(table[f, int(np.argmax(means))])
        chosen.append({"noise": noises[int(np.argmax(means))]})
    np.testing.assert_allclose(found.per_fold, values)
    assert found.chosen == chosen
    assert found.score == pytest.approx(np.mean(values))
    assert found.best_score == pytest.approx(search.best_score_)
    assert found.score < found.best_score
    assert GridSearchCV(
        Columns(), {"noise": noises}, scoring={"lds": scorer}, refit="lds", cv=FullTrainingSet(6)
    ).fit(made_up.X).best_params_ == search.best_params_  # fmt: skip


def test_held_out_score_refuses_what_it_cannot_know(made_up):
    scorer = make_lds_scorer(made_up.truth, made_up.X_query)
    one = GridSearchCV(Columns(), {"noise": [0.0, 1.0]}, scoring=scorer, cv=FullTrainingSet(1)).fit(made_up.X)
    with pytest.raises(ValueError, match="two folds"):
        held_out_score(one)
    other = GridSearchCV(Columns(), {"noise": [0.0]}, scoring=lambda e, X, y=None: 0.0, cv=2).fit(made_up.X)
    with pytest.raises(ValueError, match="FullTrainingSet"):
        held_out_score(other)


def test_grid_search_over_a_frozen_net_agrees_with_a_loop(problem):
    scorer = make_lds_scorer(problem.truth, problem.X_query)
    est = SourceAttribution(FrozenEstimator(problem.net))
    search = GridSearchCV(est, {"n_segments": [1, 3]}, scoring=scorer, cv=FullTrainingSet(3), error_score="raise")
    search.fit(problem.X, problem.y)
    for i, n_segments in enumerate([1, 3]):
        tau = SourceAttribution(n_segments=n_segments).fit(problem.net, problem.X, problem.y).transform(problem.X_query)
        for f in range(3):
            fold = scorer.fold(f, 3)
            expected = linear_datamodeling_score(tau[fold], of_queries(problem.truth, fold)).score
            assert search.cv_results_[f"split{f}_test_score"][i] == pytest.approx(expected, abs=1e-6)
    assert search.transform(problem.X_query).shape == (N_QUERY, N_TRAIN)
    assert np.isfinite(scorer(search, problem.X))
    assert held_out_score(search).best_score == pytest.approx(search.best_score_)


def test_unfrozen_nets_pipelines_and_halving(problem):
    scorer = make_lds_scorer(problem.truth, problem.X_query)
    fit = {"scoring": scorer, "cv": FullTrainingSet(2), "error_score": "raise"}
    est = SourceAttribution(make_net(max_epochs=2), n_segments=1, random_state=0)
    assert np.isfinite(cross_val_score(est, problem.X, problem.y, **fit)).all()
    frozen = InfluenceFunctions(FrozenEstimator(problem.net))
    plain = cross_val_score(frozen, problem.X, problem.y, **fit)
    piped = cross_val_score(make_pipeline(FunctionTransformer(), frozen), problem.X, problem.y, **fit)
    np.testing.assert_array_equal(piped, plain)
    frame = cross_val_score(
        InfluenceFunctions(FrozenEstimator(problem.net)).set_output(transform="pandas"), problem.X, problem.y, **fit
    )
    np.testing.assert_array_equal(frame, plain)
    sampled = SourceAttribution(FrozenEstimator(problem.net), curvature=EKFAC(fisher="sampled"))
    source = make_pipeline(FunctionTransformer(), sampled)
    grid = {"sourceattribution__n_segments": [1, 2, 3]}
    import_module("sklearn.experimental.enable_halving_search_cv")
    halving = model_selection.HalvingGridSearchCV(
        source,
        grid,
        resource="sourceattribution__curvature__n_samples",
        max_resources=4,
        min_resources=1,
        factor=2,
        **fit,
    ).fit(problem.X, problem.y)
    assert sorted(set(halving.cv_results_["n_resources"])) == [1, 2]
    assert np.isfinite(halving.cv_results_["mean_test_score"]).all()
    with pytest.raises(ValueError, match="queries="):
        held_out_score(halving)
    randomized = RandomizedSearchCV(frozen, {"damping": [1e-2, 1e-1]}, n_iter=2, **fit).fit(problem.X, problem.y)
    assert np.isfinite(held_out_score(randomized).score)


def test_curvatures_and_their_parameters_are_searched(problem):
    """From a name as from an object; every candidate has the score of that setting fitted by itself."""
    scorer = make_lds_scorer(problem.truth, problem.X_query)
    options = {"scoring": scorer, "cv": FullTrainingSet(2), "error_score": "raise"}
    objects = [Diagonal(fisher="empirical"), Identity(), "kfac", EKFAC(basis="shampoo"), EKFAC(fisher="empirical")]
    grids = [
        ("ekfac", {"curvature__basis": ["kfac", "shampoo"], "curvature__fisher": ["exact", "empirical"]}),
        (EKFAC(fisher="empirical"), {"curvature__basis": ["kfac", "shampoo"]}),
        ("ekfac", {"curvature": objects}),
        ("kfac", [{"curvature": [KFAC(), "ekfac"], "curvature__basis": ["shampoo", "kfac"]}]),
    ]
    for curvature, grid in grids:
        for method in (InfluenceFunctions, SourceAttribution):
            est = method(FrozenEstimator(problem.net), curvature=curvature, random_state=0)
            search = GridSearchCV(est, grid, **options).fit(problem.X, problem.y)
            found = search.cv_results_["mean_test_score"]
            for params, value in zip(search.cv_results_["params"], found):
                alone = clone(est).set_params(**params)
                assert cross_val_score(alone, problem.X, problem.y, **options).mean() == pytest.approx(value)
            assert len(set(found)) > 1
            assert est.curvature is curvature
            assert search.best_estimator_.transform(problem.X_query).shape == (N_QUERY, N_TRAIN)


def test_targets_of_queries_reach_the_estimator(problem):
    rng = np.random.default_rng(0)
    y_query = rng.normal(size=(N_QUERY, 1)).astype(np.float32)
    truth = Bunch(masks=problem.truth.masks, outputs=problem.truth.outputs, settings={"query_labels": "given"})
    with pytest.raises(ValueError, match="the same y_query"):
        make_lds_scorer(truth, problem.X_query)
    scorer = make_lds_scorer(truth, problem.X_query, y_query)
    est = InfluenceFunctions(FrozenEstimator(problem.net), measurement="neg_loss").fit(problem.X, problem.y)
    expected = linear_datamodeling_score(est.transform(problem.X_query, y_query), truth).score
    assert scorer(est, problem.X) == pytest.approx(expected)
    piped = make_pipeline(FunctionTransformer(), est)
    assert scorer(piped, problem.X) == pytest.approx(expected)


def test_memory_keeps_statistics_across_folds_and_settings(problem, tmp_path, monkeypatch):
    computed, moments = [], _cache.moments

    def counted(stream, c, *args):
        computed.append(stream.checkpoints[c].digest)
        return moments(stream, c, *args)

    monkeypatch.setattr(_cache, "moments", counted)
    est = SourceAttribution(FrozenEstimator(problem.net), curvature=EKFAC(memory=str(tmp_path)))
    options = {"scoring": make_lds_scorer(problem.truth, problem.X_query), "cv": FullTrainingSet(3)}
    search = GridSearchCV(est, {"n_segments": [1, 2, 3]}, error_score="raise", **options)
    search.fit(problem.X, problem.y)
    assert 0 < len(computed) == len(set(computed))  # each checkpoint once, over 3 settings x 3 folds and the refit
    again = len(computed)
    search.fit(problem.X, problem.y)
    assert len(computed) == again


def test_scorer_can_be_pickled(made_up):
    scorer = make_lds_scorer(made_up.truth, made_up.X_query)
    est = Columns().fit(made_up.X)
    assert pickle.loads(pickle.dumps(scorer))(est, made_up.X) == scorer(est, made_up.X)


@pytest.mark.slow
def test_scorer_crosses_processes(problem):
    scorer = make_lds_scorer(problem.truth, problem.X_query)
    est = RepresentationSimilarity(FrozenEstimator(problem.net))
    fit = {"scoring": scorer, "cv": FullTrainingSet(2), "error_score": "raise"}
    one = cross_val_score(est, problem.X, problem.y, **fit)
    two = cross_val_score(est, problem.X, problem.y, n_jobs=2, **fit)
    np.testing.assert_allclose(two, one, atol=1e-6)


def test_folds_of_rows_are_refused(problem):
    scorer = make_lds_scorer(problem.truth, problem.X_query)
    frozen = InfluenceFunctions(FrozenEstimator(problem.net))
    with pytest.raises(ValueError, match="keep all rows in every fold"):
        cross_val_score(frozen, problem.X, problem.y, scoring=scorer, cv=KFold(2), error_score="raise")
    bare = InfluenceFunctions(make_net(max_epochs=1), random_state=0)
    with pytest.raises(ValueError, match="FullTrainingSet"):
        cross_val_score(bare, problem.X, problem.y, scoring=scorer, cv=KFold(2), error_score="raise")


def test_rows_are_recognised_in_any_order(problem):
    """``fit`` takes them in any order, and a halving search deals them out in another one."""
    scorer = make_lds_scorer(problem.truth)
    order = np.random.default_rng(0).permutation(N_TRAIN)
    expected = scorer(SourceAttribution().fit(problem.net, problem.X, problem.y), problem.X)
    shuffled = SourceAttribution().fit(problem.net, problem.X[order], problem.y[order])
    assert scorer(shuffled, problem.X) == pytest.approx(expected, abs=1e-6)
    assert scorer(make_pipeline(FunctionTransformer(), shuffled), problem.X) == pytest.approx(expected, abs=1e-6)
    empirical = [
        EmpiricalInfluence(problem.truth).fit(problem.X[rows], problem.y[rows]) for rows in (order, slice(None))
    ]
    tau = [e.transform(problem.X_query) for e in empirical]
    np.testing.assert_array_equal(tau[0], tau[1][:, order])
    assert scorer(empirical[0], problem.X) == pytest.approx(scorer(empirical[1], problem.X))
    fit = {"scoring": scorer, "cv": FullTrainingSet(2), "error_score": "raise"}
    est = InfluenceFunctions(FrozenEstimator(problem.net))
    import_module("sklearn.experimental.enable_halving_search_cv")
    halving = model_selection.HalvingGridSearchCV(est, {"damping": [1e-2, 1e-1]}, random_state=0, **fit)
    grid = GridSearchCV(est, {"damping": [1e-2, 1e-1]}, **fit).fit(problem.X, problem.y)
    found = halving.fit(problem.X, problem.y).cv_results_["mean_test_score"][:2]
    np.testing.assert_allclose(found, grid.cv_results_["mean_test_score"], atol=1e-6)


def test_rows_other_than_the_truths(problem):
    scorer = make_lds_scorer(problem.truth)
    y = problem.y + (np.arange(N_TRAIN)[:, None] < 3)
    other = InfluenceFunctions(make_net(max_epochs=1), random_state=0).fit(problem.X, y)
    with pytest.raises(ValueError, match="3 of 40 are others"):
        scorer(other, problem.X)
    with pytest.raises(ValueError, match="3 of 40 are others"):
        EmpiricalInfluence(problem.truth).fit(problem.X, y)
    scaled = InfluenceFunctions(make_net(max_epochs=1), random_state=0).fit(2 * problem.X, problem.y)
    with pytest.warns(UserWarning, match="taken on trust"):
        scorer(scaled, problem.X)


def test_fewer_rows_in_a_halving_search(problem):
    import_module("sklearn.experimental.enable_halving_search_cv")
    search = model_selection.HalvingGridSearchCV(
        SourceAttribution(FrozenEstimator(problem.net)), {"n_segments": [1, 2, 3]}, min_resources=20,
        cv=FullTrainingSet(), scoring=make_lds_scorer(problem.truth), error_score="raise",
    )  # fmt: skip
    with pytest.raises(ValueError, match="in a halving search, a parameter as resource"):
        search.fit(problem.X, problem.y)


def test_another_output_is_refused():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 3)).astype(np.float32)
    y = np.column_stack([X[:, 0], -X[:, 1]])
    net = make_net(module__n_outputs=2, max_epochs=1).fit(X, y)
    truth = retrain_on_subsets(net, X, y, X[:4], output=1, n_subsets=3, n_repeats=1, random_state=0)
    scorer = make_lds_scorer(truth)
    assert np.isfinite(scorer(InfluenceFunctions(output=1).fit(net, X, y), X))
    with pytest.raises(ValueError, match=r"'prediction' of output \(1,\), .* 'prediction' of output \(0,\)"):
        scorer(InfluenceFunctions(output=0).fit(net, X, y), X)


def test_another_measurement_is_refused(problem):
    scorer = make_lds_scorer(problem.truth, problem.X_query)
    est = InfluenceFunctions(measurement=lambda output, target: output[:, 0]).fit(problem.net, problem.X, problem.y)
    with pytest.raises(ValueError, match="the truth measured, 'prediction', got one that attributes '<lambda>'"):
        scorer(est, problem.X)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"X_query": np.zeros((4, 3))}, "the 9 queries of the truth, got X_query of 4"),
        ({"y_query": np.zeros(4)}, "got y_query of 4"),
        ({"queries": [9]}, "indices from 0 to 8"),
        ({"queries": [1, 1]}, "twice"),
        ({"queries": []}, "indices from 0 to 8"),
        ({"metric": "lds"}, "callable"),
    ],
)
def test_bad_input(problem, options, message):
    with pytest.raises(ValueError, match=message):
        make_lds_scorer(**{"truth": problem.truth, "X_query": problem.X_query, **options})


def test_more_folds_than_queries(problem):
    scorer = make_lds_scorer(problem.truth, problem.X_query, queries=[0, 1])
    est = RepresentationSimilarity(FrozenEstimator(problem.net))
    with pytest.raises(ValueError, match="as many folds as queries, which are 2, got 3"):
        cross_val_score(est, problem.X, problem.y, scoring=scorer, cv=FullTrainingSet(3), error_score="raise")
    for n_splits in (0, 1.5, True):
        with pytest.raises(ValueError, match="n_splits"):
            FullTrainingSet(n_splits)


def test_a_truth_keeps_targets_of_any_kind(problem, tmp_path):
    y_query = np.arange(N_QUERY, dtype=np.float32)[:, None]
    expected, settings = None, {"query_labels": "given"}
    for kind in (np.asarray, lambda a: a.tolist(), pd.DataFrame, torch.from_numpy):
        kept = {"X_query": kind(problem.X_query), "y_query": kind(y_query)}
        truth = Retraining(
            problem.truth.masks, problem.truth.outputs, "neg_loss", problem.truth.seeds, settings, **kept
        )
        loaded = Retraining.load(truth.save(tmp_path / "truth"))
        est = InfluenceFunctions(measurement="neg_loss").fit(problem.net, problem.X, problem.y)
        found = make_lds_scorer(loaded)(est, problem.X)
        expected = found if expected is None else expected
        assert found == expected
    loaded.y_query = None
    assert make_lds_scorer(loaded, y_query=y_query)(est, problem.X) == expected
    with pytest.raises(ValueError, match="pass the same y_query"):
        make_lds_scorer(loaded)


def test_a_truth_keeps_its_queries(problem, tmp_path):
    """Also on disk: then nobody has to hand them over a second time."""
    loaded = Retraining.load(problem.truth.save(tmp_path / "truth"))
    np.testing.assert_array_equal(loaded.X_query, problem.X_query)
    assert loaded.y_query is None
    est = SourceAttribution(FrozenEstimator(problem.net)).fit(problem.X, problem.y)
    expected = make_lds_scorer(problem.truth, problem.X_query)(est, problem.X)
    assert make_lds_scorer(problem.truth)(est, problem.X) == expected
    assert make_lds_scorer(loaded)(est, problem.X) == expected
