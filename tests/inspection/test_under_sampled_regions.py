"""Queries that rest on few rows: against loops, on made-up scores, and on a rare cluster."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_source import InfluenceFunctions
from sklearn_source.inspection import under_sampled_regions
from sklearn_source.utils._config import DEFAULT_BYTES
from tests._nets import make_net
from tests.inspection._known_scores import known


def by_query(result):
    table = result.table
    return {name: np.asarray(table[name])[np.argsort(np.asarray(table["query"]))] for name in table.columns}


def test_columns_are_those_of_a_loop(monkeypatch):
    scores = np.random.default_rng(0).normal(size=(9, 20))
    scores[4] = -1.0  # nothing supports it
    est, X_query = known(scores)
    result = under_sampled_regions(est, X_query, k=3, share=0.3)
    columns = by_query(result)
    for q, line in enumerate(scores):
        positive = np.sort(line[line > 0])[::-1]
        if not len(positive):
            assert columns["effective_rows"][q] == columns["top_share"][q] == 0
            continue
        assert columns["effective_rows"][q] == pytest.approx(positive.sum() ** 2 / (positive**2).sum())
        assert columns["top_share"][q] == pytest.approx(positive[:3].sum() / positive.sum())
        assert columns["strongest_row"][q] == line.argmax()
        assert columns["strongest_share"][q] == pytest.approx(positive[0] / positive.sum())
    assert columns["under_sampled"].sum() == 3
    worst = np.argsort(columns["effective_rows"])[:3]
    assert columns["under_sampled"][worst].all()
    assert list(result.table["query"]) == list(np.argsort(columns["effective_rows"], kind="stable"))
    monkeypatch.setitem(DEFAULT_BYTES, "scores", 8 * 40)
    parts = by_query(under_sampled_regions(est, X_query, k=3, share=0.3))
    for name, values in columns.items():
        np.testing.assert_array_equal(parts[name], values)


def test_equal_shares_count_rows():
    scores = np.zeros((3, 10))
    scores[0, :1], scores[1, :4], scores[2] = 5.0, 0.1, 1.0
    est, X_query = known(scores)
    np.testing.assert_allclose(by_query(under_sampled_regions(est, X_query))["effective_rows"], [1, 4, 10])


def test_regions_are_queries_that_share_rows():
    scores = np.zeros((8, 30))
    scores[0, [1, 2, 3]] = scores[1, [2, 3, 4]] = scores[2, [3, 4, 5]] = 1.0  # a chain
    scores[3, [10, 11, 12]] = scores[4, [10, 11, 12]] = 1.0
    scores[5, [20]] = 1.0
    scores[6:] = 1.0  # rest on all rows
    est, X_query = known(scores)
    result = under_sampled_regions(est, X_query, k=3, share=0.75)
    region = by_query(result)["region"]
    assert list(region[:3]) == [0, 0, 0]
    assert list(region[3:5]) == [1, 1]
    assert list(region[5:]) == [2, -1, -1]
    assert [list(r.queries) for r in result.regions] == [[0, 1, 2], [3, 4], [5]]
    assert list(result.regions[0].rows) == [3, 2, 4, 1, 5]
    assert list(result.regions[0].n_supported) == [3, 2, 2, 1, 1]


def test_a_rare_cluster_is_found():
    rng = np.random.default_rng(0)
    centres = np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 6.0]])
    sizes = [100, 100, 4]
    y = np.repeat([0, 1, 2], sizes)
    X = (centres[y] + rng.normal(size=(204, 2))).astype(np.float32)
    kind = np.repeat([0, 1, 2], [20, 20, 8])
    X_query = (centres[kind] + rng.normal(size=(48, 2))).astype(np.float32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = make_net(
            NeuralNetClassifier, module__hidden=(16,), module__n_outputs=3, criterion=nn.CrossEntropyLoss,
            max_epochs=30, recorded=False, iterator_train__shuffle=True,
        ).fit(X, y)  # fmt: skip
    result = under_sampled_regions(InfluenceFunctions().fit(net, X, y), X_query, k=5, share=8 / 48)
    flagged = by_query(result)["under_sampled"]
    assert (kind[flagged] == 2).sum() >= 6
    rare = [r for r in result.regions if (kind[r.queries] == 2).all()]
    assert rare
    assert set(np.flatnonzero(y == 2)) <= set(rare[0].rows)


def thin_and_dense(seed=0):
    """Classes in four places, two of each: the last place is thin; a net that knows them, and queries from there."""
    rng = np.random.default_rng(seed)
    centres = np.array([[2.0, 2.0], [-2.0, 2.0], [-2.0, -2.0], [2.0, -2.0]])
    sizes = [60, 60, 60, 3]
    place = np.repeat(np.arange(4), sizes)
    X = (centres[place] + rng.normal(size=(183, 2))).astype(np.float32)
    query_place = np.repeat(np.arange(4), 15)
    X_query = (centres[query_place] + rng.normal(size=(60, 2))).astype(np.float32)
    net = make_net(
        NeuralNetClassifier, module__hidden=(16,), module__n_outputs=2, criterion=nn.CrossEntropyLoss, max_epochs=15,
        iterator_train__shuffle=True,
    )  # fmt: skip
    return net, X, place % 2, place, X_query, query_place % 2, query_place, centres


def test_more_of_a_thin_region_helps_as_predicted():
    net, X, y, place, X_query, y_query, query_place, centres = thin_and_dense()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net.fit(X, y)
    est = InfluenceFunctions(random_state=0).fit(net, X, y)
    result = under_sampled_regions(
        est, X_query, y_query, k=5, share=0.25, weight=3.0, n_random=10, random_state=0, feature_names=["a", "b"]
    )
    thin = max(result.regions, key=lambda region: (query_place[region.queries] == 3).mean() * len(region.queries))
    assert (query_place[thin.queries] == 3).mean() > 0.5
    assert set(np.flatnonzero(place == 3)) <= set(thin.rows)
    assert thin.thin < 1
    assert thin.description.startswith(f"more like {len(thin.rows)} rows")
    assert thin.gain > thin.random_gain + 2 * thin.random_spread
    assert thin.gain_error is None
    weights = np.ones(len(X))
    weights[thin.rows] = 3.0
    queries = X_query[thin.queries], y_query[thin.queries]
    assert thin.gain == pytest.approx(est.predict_reweighting(*queries, weights=weights).mean(), rel=1e-4)
    # New rows of the kind, twice as many as the region has, against as many from the other places.
    rng = np.random.default_rng(1)
    new = {
        "thin": np.full(2 * len(thin.rows), 3),
        "elsewhere": rng.integers(0, 3, 2 * len(thin.rows)),
        "none": np.empty(0, int),
    }
    measured = {}
    for name, places in new.items():
        X_new = (centres[places] + rng.normal(size=(len(places), 2))).astype(np.float32)
        odds = []
        for seed in range(3):
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                again = clone(net).fit(np.concatenate([X, X_new]), np.concatenate([y, places % 2]))
            p = again.forward(queries[0]).double().softmax(1).numpy()[np.arange(len(queries[1])), queries[1]]
            odds.append(np.log(p / (1 - p)).mean())
        measured[name] = np.mean(odds)
    assert measured["thin"] > measured["none"]
    assert measured["thin"] > measured["elsewhere"]


def test_a_weight_needs_a_method_that_knows_it():
    est, X_query = known(np.eye(3))
    with pytest.raises(ValueError, match="predict_reweighting"):
        under_sampled_regions(est, X_query, k=1, weight=2.0)


def test_without_pandas_a_record_array():
    est, X_query = known(np.eye(3))
    table = under_sampled_regions(est, X_query, k=1, as_frame=False).table
    assert isinstance(table, np.recarray)
    assert sorted(table["query"]) == [0, 1, 2]
    assert table.effective_rows[0] == 1


@pytest.mark.parametrize(
    "options", [{"k": 0}, {"k": 4}, {"share": 0}, {"share": 1.5}, {"as_frame": "yes"}, {"weight": 1.0}]
)
def test_bad_settings(options):
    est, X_query = known(np.eye(3))
    with pytest.raises(ValueError, match=next(iter(options))):
        under_sampled_regions(est, X_query, **{"k": 1, **options})
