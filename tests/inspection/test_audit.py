"""The audit of training rows: each column against something independent, and on labels known to be wrong."""

from __future__ import annotations

import builtins

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import rankdata
from sklearn.datasets import load_digits
from sklearn.utils import Bunch
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklearn_source import GradientSimilarity, InfluenceFunctions, RepresentationSimilarity, SourceAttribution
from sklearn_source.inspection import _nearest_neighbours, audit_training_rows
from sklearn_source.inspection._nearest_neighbours import nearest_others
from sklearn_source.metrics import mislabel_detection_score
from tests._nets import make_net
from tests.inspection._known_scores import known


@pytest.fixture(scope="module")
def digits():
    """Digits with 10 % wrong labels, one row given twice with two labels, and a trained network."""
    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    X = X / 16 + 1e-3 * rng.normal(size=X.shape)  # no distances tie
    X, y = X.astype(np.float32), y.astype(np.int64)
    order = rng.permutation(len(X))
    X, y, X_query, y_query = X[order[:400]], y[order[:400]], X[order[400:500]], y[order[400:500]]
    true, bad = y.copy(), rng.choice(399, 40, replace=False)
    y = y.copy()
    y[bad] = (y[bad] + rng.integers(1, 10, size=40)) % 10
    good = np.setdiff1d(np.arange(399), bad)[0]
    X[399] = X[good] + 1e-3 * rng.normal(size=64)
    y[399], true[399] = (y[good] + 3) % 10, y[good]
    net = trained(
        X, y, NeuralNetClassifier, module__hidden=(32,), module__n_outputs=10, criterion=nn.CrossEntropyLoss, lr=0.1,
        optimizer__momentum=0.9, batch_size=32, max_epochs=15, iterator_train__shuffle=True,
    )  # fmt: skip
    est = InfluenceFunctions().fit(net, X, y)
    table = audit_training_rows(est, X, y, X_query=X_query, y_query=y_query, n_neighbors=5, k=8)
    data = {"X": X, "y": y, "true": true, "good": good, "X_query": X_query, "y_query": y_query}
    return Bunch(**data, net=net, est=est, table=table, wrong=np.append(bad, 399))


def trained(X, y, cls=NeuralNetRegressor, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make_net(cls, **options).fit(X, y)


def in_order(table):
    return table.sort_values("row").reset_index(drop=True)


def test_columns_of_the_network(digits):
    table = in_order(digits.table)
    probability = torch.softmax(digits.net.forward(digits.X), 1).numpy()
    np.testing.assert_array_equal(table["row"], np.arange(400))
    np.testing.assert_array_equal(table["label"], digits.y)
    np.testing.assert_array_equal(table["predicted"], probability.argmax(1))
    own = probability[np.arange(400), digits.y]
    np.testing.assert_allclose(table["probability"], own, rtol=1e-4)
    np.testing.assert_allclose(table["loss"], -np.log(own), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(table["self_influence"], digits.est.self_influence(), rtol=1e-5)
    np.testing.assert_allclose(table["loss_without"], table["loss"] + table["self_influence"])
    np.testing.assert_allclose(table["probability_without"], np.exp(-table["loss_without"]).clip(upper=1))


def test_columns_of_the_neighbours(digits):
    table, distances = in_order(digits.table), cdist(digits.X, digits.X)
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1)[:, :5]
    np.testing.assert_allclose(table["neighbour_disagreement"], (digits.y[nearest] != digits.y[:, None]).mean(1))
    assert table["near_duplicate"][399] == digits.good
    assert table["near_duplicate"][digits.good] == 399
    near = (distances < 0.1 * np.median(distances.min(1))) & (digits.y[:, None] != digits.y)
    np.testing.assert_array_equal(table["near_duplicate"] >= 0, near.any(1))


def test_columns_of_the_queries(digits):
    table, scores = in_order(digits.table), digits.est.transform(digits.X_query, digits.y_query)
    opposed = np.zeros(400, int)
    for line in scores:
        for m in sorted(range(400), key=lambda m: line[m])[:8]:
            opposed[m] += line[m] < 0
    np.testing.assert_array_equal(table["opposed_queries"], opposed)
    np.testing.assert_allclose(table["query_influence"], scores.sum(0, dtype=float), rtol=1e-4, atol=1e-4)


def test_suspicion_is_the_mean_rank_and_the_order(digits):
    table = in_order(digits.table)
    names = ["self_influence", "loss_without", "neighbour_disagreement", "opposed_queries"]
    ranks = np.mean([(rankdata(table[name]) - 0.5) / 400 for name in names], axis=0)
    np.testing.assert_allclose(table["suspicion"], ranks)
    assert (np.diff(digits.table["suspicion"]) <= 0).all()


def test_wrong_labels_come_first_and_get_the_right_ones(digits):
    table = in_order(digits.table)
    assert mislabel_detection_score(table["suspicion"], digits.wrong).score > 0.97
    relabel = (table["suggestion"] == "relabel").to_numpy()
    wrong = np.isin(np.arange(400), digits.wrong)
    assert (relabel & wrong).sum() >= 0.8 * wrong.sum()
    assert (relabel & ~wrong).sum() <= 0.03 * 400
    fixed = table["suggested_label"].to_numpy()[relabel & wrong]
    assert (fixed == digits.true[relabel & wrong]).mean() > 0.95
    kept = (table["suggestion"] == "keep").to_numpy()
    np.testing.assert_array_equal(table["suggested_label"][~relabel], digits.y[~relabel])
    assert (kept & wrong).sum() <= 1
    assert (table["reason"][relabel] != "").all()
    assert f"nearly the same as row {digits.good}" in table["reason"][399]
    assert table["suggestion"][399] in ("relabel", "drop")
    assert table["suggestion"][digits.good] != "relabel"


@pytest.mark.parametrize("est", [SourceAttribution(n_segments=1), InfluenceFunctions()], ids=["source", "influence"])
def test_labels_learned_by_heart_are_still_found(est):
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    X = (rng.normal(size=(60, 10)) + 1.2 * (2 * y[:, None] - 1)).astype(np.float32)
    wrong = np.array([3, 10, 25])
    y[wrong] = 1 - y[wrong]
    net = trained(
        X, y, NeuralNetClassifier, module__hidden=(64,), module__n_outputs=2, criterion=nn.CrossEntropyLoss, lr=0.2,
        optimizer__momentum=0.9, max_epochs=60, batch_size=10, iterator_train__shuffle=True,
    )  # fmt: skip
    assert (net.predict(X) == y).all()
    table = in_order(audit_training_rows(est.fit(net, X, y), X, y, n_neighbors=5, high=0.1))
    assert (table["suggestion"][wrong] != "keep").all()
    relabel = np.flatnonzero(table["suggestion"] == "relabel")
    assert len(relabel) >= 2
    assert set(relabel) <= set(wrong)
    np.testing.assert_array_equal(table["suggested_label"][relabel], 1 - y[relabel])


def test_regression():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 3)).astype(np.float32)
    target = X[:, :1].copy()
    target[7] += 6
    net = trained(X, target, max_epochs=10)
    table = in_order(audit_training_rows(InfluenceFunctions().fit(net, X, target), X, target, X_query=X[:9]))
    np.testing.assert_allclose(table["predicted"], net.predict(X)[:, 0], rtol=1e-5)
    np.testing.assert_allclose(table["loss"], (net.predict(X) - target)[:, 0] ** 2, rtol=1e-4)
    assert table["suspicion"].idxmax() == 7
    assert table["suggestion"][7] == "inspect"
    assert "standard deviations from the mean of its neighbours" in table["reason"][7]
    assert "suggested_label" not in table
    # Lowering a prediction is no harm, raising the loss of a query is.
    assert "opposed_queries" in table
    assert not table["reason"].str.contains("opposes").any()
    est = InfluenceFunctions(measurement="neg_loss").fit(net, X, target)
    table = in_order(audit_training_rows(est, X, target, X_query=X[:9], y_query=X[:9, :1]))
    assert table["opposed_queries"].idxmax() == 7
    assert table["suggestion"][7] == "drop"


def test_binary_networks():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 3)).astype(np.float32)
    labels = (X[:, 0] > 0).astype(np.float32)
    net = trained(X, labels, NeuralNetBinaryClassifier, module__squeeze=True, max_epochs=20)
    table = in_order(audit_training_rows(InfluenceFunctions().fit(net, X, labels), X, labels))
    np.testing.assert_array_equal(table["predicted"], net.predict(X))
    p = net.predict_proba(X)[np.arange(50), labels.astype(int)]
    np.testing.assert_allclose(table["probability"], p, rtol=1e-4)
    np.testing.assert_array_equal(table["label"], labels)


def test_several_outputs_and_methods_without_a_unit(digits):
    rng = np.random.default_rng(0)
    X, Y = (rng.normal(size=(30, 2)).astype(np.float32) for _ in range(2))
    net = trained(X, Y, module__n_outputs=2)
    table = audit_training_rows(RepresentationSimilarity().fit(net, X, Y), X, Y)
    assert "target" not in table
    assert "loss_without" not in table
    table = audit_training_rows(GradientSimilarity().fit(digits.net, digits.X, digits.y), digits.X, digits.y)
    assert "probability" in table
    assert "probability_without" not in table


def test_a_smoothed_loss_is_no_probability(digits):
    options = {"module__n_outputs": 10, "criterion": nn.CrossEntropyLoss, "criterion__label_smoothing": 0.2}
    net = trained(digits.X, digits.y, NeuralNetClassifier, **options)
    table = audit_training_rows(InfluenceFunctions().fit(net, digits.X, digits.y), digits.X, digits.y)
    assert "loss_without" in table
    assert "probability_without" not in table


class Sequence(nn.Module):
    """Three classes at each of four places."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 12)

    def forward(self, X):
        return self.linear(X).reshape(len(X), 3, 4)


def test_rows_of_several_classes_have_no_label():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 3)).astype(np.float32), rng.integers(0, 3, size=(30, 4))
    net = trained(X, y, NeuralNet, module=Sequence, criterion=nn.CrossEntropyLoss)
    est = InfluenceFunctions(measurement="neg_loss").fit(net, X, y)
    table = in_order(audit_training_rows(est, X, y, X_query=X[:5], y_query=y[:5]))
    assert not {"label", "target", "suggested_label", "neighbour_disagreement"} & set(table)
    expected = nn.functional.cross_entropy(net.forward(X), torch.as_tensor(y), reduction="none").mean(1)
    np.testing.assert_allclose(table["loss"], expected, rtol=1e-4)
    assert set(table["suggestion"]) >= {"inspect", "keep"}


def test_representation_decides_on_neighbours(digits):
    one_hot = np.eye(10)[digits.true] + 1e-3 * np.random.default_rng(0).normal(size=(400, 10))
    table = in_order(audit_training_rows(digits.est, digits.X, digits.y, representation=one_hot))
    right = digits.y == digits.true
    assert table["neighbour_disagreement"][~right].min() > table["neighbour_disagreement"][right].max() - 0.5
    images = digits.X.reshape(400, 8, 8)
    np.testing.assert_array_equal(
        audit_training_rows(digits.est, digits.X, digits.y)["neighbour_disagreement"],
        audit_training_rows(digits.est, digits.X, digits.y, representation=images.reshape(400, 64))[
            "neighbour_disagreement"
        ],
    )


def test_the_net_is_left_as_it_was(digits):
    digits.net.module_.train()
    audit_training_rows(digits.est, digits.X, digits.y)
    assert digits.net.module_.training


def test_frames_and_record_arrays(digits, monkeypatch):
    frame = pd.DataFrame(digits.X)
    est = InfluenceFunctions(measurement="neg_loss").fit(digits.net, digits.X, digits.y)
    array = audit_training_rows(est, frame.to_numpy(), digits.y, as_frame=False)
    assert isinstance(array, np.recarray)
    whole = audit_training_rows(est, digits.X, digits.y, as_frame=True)
    np.testing.assert_array_equal(array.row, whole["row"])
    importing = builtins.__import__

    def without_pandas(name, *args, **kwargs):
        if name == "pandas":
            raise ImportError(name)
        return importing(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_pandas)
    assert isinstance(audit_training_rows(est, digits.X, digits.y), np.recarray)
    with pytest.raises(ImportError, match="needs pandas"):
        audit_training_rows(est, digits.X, digits.y, as_frame=True)


def test_rows_are_read_as_fit_reads_them():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3)).astype(np.float32)
    y = X[:, 0] - X[:, 1]
    est = InfluenceFunctions(make_net(), random_state=0).fit(X, y)  # trains on a column of targets
    expected = audit_training_rows(est, X, y)
    for rows in ((X.tolist(), y.tolist()), (pd.DataFrame(X), pd.Series(y)), (X.astype(float), y[:, None])):
        pd.testing.assert_frame_equal(audit_training_rows(est, *rows), expected)


def test_bad_input(digits):
    call = {"estimator": digits.est, "X": digits.X, "y": digits.y}
    for options, message in (
        ({"X": digits.X[:5], "y": digits.y[:5]}, "the 400 training rows"),
        ({"y": None}, "400 without targets"),
        ({"X": digits.X[::-1], "y": digits.y[::-1]}, "in the same order, got them in another one"),
        ({"X": np.where(np.arange(400)[:, None] == 7, 0, digits.X)}, "in the same order, got 1 others"),
        ({"y_query": digits.y}, "expected X_query where y_query is given"),
        ({"n_neighbors": -1}, "n_neighbors"),
        ({"k": 1.5}, "expected k to be an integer from 1 to 400"),
        ({"high": 1}, "expected high to be a share"),
        ({"representation": digits.X[:3]}, "expected representation"),
    ):
        with pytest.raises(ValueError, match=message):
            audit_training_rows(**{**call, **options})
    with pytest.raises(TypeError, match="with a network to ask"):
        audit_training_rows(known(np.eye(3))[0], digits.X, digits.y)


@pytest.mark.parametrize("n_dimensions", [1, 3, 8, 14, 15])
def test_nearest_others_are_those_of_all_distances(n_dimensions, monkeypatch):
    """By a tree or not, in several parts, and where a row has more copies than neighbours."""
    monkeypatch.setattr(_nearest_neighbours, "_QUERIES", 50)
    vectors = np.random.default_rng(0).normal(size=(120, n_dimensions)).astype(np.float32)
    vectors[40:60] = vectors[40]
    distances, index = nearest_others(vectors, 7)
    exact = np.linalg.norm(vectors[:, None].astype(float) - vectors[None], axis=2)
    np.fill_diagonal(exact, np.inf)
    np.testing.assert_allclose(distances, np.sort(exact, axis=1)[:, :7], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(exact, index, axis=1), distances, atol=1e-6)
    assert all(len(set(row)) == 7 for row in index.tolist())
