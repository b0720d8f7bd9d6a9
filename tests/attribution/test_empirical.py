"""Influence by retraining, against loops over networks and worlds whose effects are known."""

from __future__ import annotations

import pickle
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.utils import Bunch

from sklearn_source import EmpiricalInfluence
from sklearn_source.metrics import linear_datamodeling_score
from sklearn_source.model_selection import FullTrainingSet, make_lds_scorer
from sklearn_source.retraining import retrain_on_subsets
from tests._nets import make_net

N_TRAIN, N_QUERY = 12, 5


def world(seed=0, n_subsets=30, n_repeats=2, noise=0.5, n_query=N_QUERY):
    rng = np.random.default_rng(seed)
    effects = rng.normal(size=(n_query, N_TRAIN))
    masks = np.argsort(rng.random((n_subsets, N_TRAIN)), axis=1) < N_TRAIN // 2
    outputs = 100 + (masks @ effects.T)[:, None] + noise * rng.normal(size=(n_subsets, n_repeats, n_query))
    X, X_query = rng.normal(size=(N_TRAIN, 3)), rng.normal(size=(n_query, 3))
    return Bunch(truth=Bunch(masks=masks, outputs=outputs), effects=effects, X=X, X_query=X_query)


def test_scores_and_errors_are_those_of_a_loop():
    w = world()
    est = EmpiricalInfluence(w.truth).fit(w.X)
    scores, errors = est.transform(w.X_query), est.score_error(w.X_query)
    assert scores.dtype == errors.dtype == np.float32
    for q in range(N_QUERY):
        for m in range(N_TRAIN):
            has = [w.truth.outputs[j, :, q].mean() for j in range(30) if w.truth.masks[j, m]]
            lacks = [w.truth.outputs[j, :, q].mean() for j in range(30) if not w.truth.masks[j, m]]
            assert scores[q, m] == pytest.approx(np.mean(has) - np.mean(lacks), abs=1e-5)
            expected = np.sqrt(np.var(has, ddof=1) / len(has) + np.var(lacks, ddof=1) / len(lacks))
            assert errors[q, m] == pytest.approx(expected, rel=1e-5)


def test_all_subsets_of_additive_effects_give_the_effects_but_for_their_mean():
    w = world()
    masks = np.zeros((924, N_TRAIN), dtype=bool)
    for mask, rows in zip(masks, combinations(range(N_TRAIN), 6)):
        mask[list(rows)] = True
    truth = Bunch(masks=masks, outputs=(masks @ w.effects.T)[:, None])
    expected = N_TRAIN / (N_TRAIN - 1) * (w.effects - w.effects.mean(1, keepdims=True))
    np.testing.assert_allclose(EmpiricalInfluence(truth).fit(w.X).transform(w.X_query), expected, atol=1e-5)


def test_errors_cover_the_effects():
    hits = []
    for seed in range(100):
        w = world(seed, n_subsets=60)
        est = EmpiricalInfluence(w.truth).fit(w.X)
        expected = N_TRAIN / (N_TRAIN - 1) * (w.effects - w.effects.mean(1, keepdims=True))
        hits.append(abs(est.transform(w.X_query) - expected) < 1.645 * est.score_error(w.X_query))
    assert 0.86 <= np.mean(hits) <= 0.93


def test_predicts_networks_it_has_not_seen():
    w, rng = world(n_subsets=200), np.random.default_rng(1)
    masks = rng.random((50, N_TRAIN)) < 0.5
    other = Bunch(masks=masks, outputs=(masks @ w.effects.T)[:, None])
    scores = EmpiricalInfluence(w.truth).fit(w.X).transform(w.X_query)
    assert linear_datamodeling_score(scores, other).score > 0.8


def test_queries_are_recognised_in_any_number_and_order():
    w = world()
    whole = EmpiricalInfluence(w.truth).fit(w.X).transform(w.X_query)
    est = EmpiricalInfluence(w.truth, X_query=w.X_query).fit(w.X)
    pick = [3, 0, 3]
    np.testing.assert_array_equal(est.transform(w.X_query[pick].astype(np.float32)), whole[pick])
    np.testing.assert_array_equal(est.transform(w.X_query), whole)
    holding = EmpiricalInfluence(Bunch(**w.truth, X_query=w.X_query)).fit(w.X)
    np.testing.assert_array_equal(holding.transform(w.X_query[pick]), whole[pick])
    with pytest.raises(ValueError, match="1 of 2 queries are not among those"):
        est.transform(np.vstack([w.X_query[:1], w.X[:1]]))


def test_rows_and_queries_in_lists():
    w = world()
    expected = EmpiricalInfluence(w.truth).fit(w.X).transform(w.X_query)
    np.testing.assert_array_equal(EmpiricalInfluence(w.truth).fit(w.X.tolist()).transform(w.X_query.tolist()), expected)
    est = EmpiricalInfluence(w.truth, X_query=w.X_query.tolist()).fit(w.X.tolist())
    np.testing.assert_array_equal(est.transform(w.X_query[:2].tolist()), expected[:2])


def test_equal_queries_are_met_in_turn():
    w = world()
    X_query = w.X_query.copy()
    X_query[4] = X_query[1]  # with another target
    est = EmpiricalInfluence(w.truth, X_query=X_query).fit(w.X)
    np.testing.assert_array_equal(est.transform(X_query), EmpiricalInfluence(w.truth).fit(w.X).transform(w.X_query))


def test_self_influence_is_the_diagonal_of_the_training_rows():
    w = world(n_query=N_TRAIN)
    order = np.random.default_rng(0).permutation(N_TRAIN)
    est = EmpiricalInfluence(w.truth, X_query=w.X[order]).fit(w.X)
    whole = EmpiricalInfluence(w.truth).fit(w.X).transform(w.X[order])
    np.testing.assert_array_equal(est.self_influence()[order], [whole[i, m] for i, m in enumerate(order)])
    with pytest.raises(ValueError, match="among the queries"):
        EmpiricalInfluence(w.truth).fit(w.X).self_influence()


@pytest.mark.parametrize("order", ["supporting", "opposing"])
def test_top_influences(order):
    w = world()
    est = EmpiricalInfluence(w.truth).fit(w.X)
    top = est.top_influences(w.X_query, k=4, order=order)
    scores = est.transform(w.X_query)
    sign = -1 if order == "supporting" else 1
    for q in range(N_QUERY):
        np.testing.assert_array_equal(top.indices[q], sorted(range(N_TRAIN), key=lambda m: sign * scores[q, m])[:4])
        np.testing.assert_array_equal(top.scores[q], scores[q, top.indices[q]])
    for options in ({"k": 0}, {"k": 13}, {"order": "both"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            est.top_influences(w.X_query, **options)


def test_rows_of_which_nothing_is_known():
    w = world(n_subsets=6)
    w.truth.masks[:, 0], w.truth.masks[:, 1] = True, False
    w.truth.masks[:, 2] = np.arange(6) == 0  # in one subset
    with pytest.warns(UserWarning, match="2 of 12 rows are in all subsets or in none"):
        est = EmpiricalInfluence(w.truth).fit(w.X)
    assert not est.transform(w.X_query)[:, :2].any()
    assert np.isinf(est.score_error(w.X_query)[:, :3]).all()
    assert np.isfinite(est.score_error(w.X_query)[:, 3:]).any()


def test_keeps_the_contract_of_estimators():
    w = world()
    est = EmpiricalInfluence(w.truth).fit(w.X)
    expected = est.transform(w.X_query)
    other = clone(est).set_output(transform="pandas").fit(pd.DataFrame(w.X, columns=["a", "b", "c"]))
    frame = other.transform(pd.DataFrame(w.X_query, columns=["a", "b", "c"]))
    assert list(frame.columns) == [f"row{i}" for i in range(N_TRAIN)]
    assert list(other.feature_names_in_) == ["a", "b", "c"]
    np.testing.assert_array_equal(frame, expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(est)).transform(w.X_query), expected)
    assert est.n_features_in_ == 3


def test_on_a_retraining_inside_a_scorer():
    rng = np.random.default_rng(0)
    X, X_query = (rng.normal(size=(n, 3)).astype(np.float32) for n in (20, 4))
    y = X[:, :1]
    net = make_net(recorded=False)
    options = {"n_subsets": 8, "n_repeats": 1}
    first, second = (retrain_on_subsets(net, X, y, X_query, random_state=s, **options) for s in (0, 1))
    est = EmpiricalInfluence(first, X_query=X_query).fit(net, X, y)
    np.testing.assert_array_equal(est.n_with_, first.masks.sum(0))
    scorer, (_, test) = make_lds_scorer(second, X_query), list(FullTrainingSet(2).split(X))[1]
    fold = scorer.fold(1, 2)
    judge = Bunch(masks=second.masks, outputs=second.outputs[:, :, fold])
    assert scorer(est, X[test]) == linear_datamodeling_score(est.transform(X_query)[fold], judge).score


def test_bad_input():
    w = world()
    with pytest.raises(ValueError, match="no truth"):
        EmpiricalInfluence().fit(w.X)
    with pytest.raises(ValueError, match="retrain_on_subsets"):
        EmpiricalInfluence(w.X).fit(w.X)
    with pytest.raises(ValueError, match="expected the 12 training rows"):
        EmpiricalInfluence(w.truth).fit(w.X[:5])
    with pytest.raises(ValueError, match="X_query as the 5 queries"):
        EmpiricalInfluence(w.truth, X_query=w.X).fit(w.X)
    with pytest.raises(ValueError, match="expected the 5 queries that the truth"):
        EmpiricalInfluence(w.truth).fit(w.X).transform(w.X_query[:2])
