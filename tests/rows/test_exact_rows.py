"""Rows of float64 are known by every bit, wherever both sides have such: float32 holds times to minutes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from skorch import NeuralNetRegressor

from sklearn_source import EmpiricalInfluence, TracIn, Trajectory, TrajectoryRecorder
from sklearn_source.retraining import Retraining
from sklearn_source.rows import exact_row_hashes
from sklearn_source.utils._random import seeded

TIMES = 1.7e9 + 50 * np.arange(20.0)[:, None]
y = np.sin(TIMES / 500)
LATER = TIMES.copy()
LATER[7] += 30.0


class Clock(torch.nn.Module):
    """Reads seconds since 1970, which float32 holds to two minutes."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.out = torch.nn.Linear(1, 1, dtype=dtype)

    def forward(self, X):
        return self.out((X - 1.7e9) / 1000)


def train(X, y, dirname=None, **options):
    with seeded(0):
        net = NeuralNetRegressor(
            Clock, max_epochs=1, train_split=None, verbose=0, callbacks=[TrajectoryRecorder(dirname=dirname)], **options
        )
        return net.fit(X, y)


@pytest.fixture(scope="module")
def net():
    return train(TIMES, y)


@pytest.mark.parametrize("stored", [False, True])
def test_other_times_are_other_rows(net, tmp_path, stored):
    if stored:
        Trajectory.from_net(net).save(tmp_path / "t")
        method = TracIn(trajectory=tmp_path / "t")
    else:
        method = TracIn()
    with pytest.raises(ValueError, match=r"1 were not among them.*every bit"):
        method.fit(net, LATER, y)
    other = y.copy()
    other[3] += 1e-9
    with pytest.raises(ValueError, match=r"1 were not among them.*every bit"):
        method.fit(net, TIMES, other)
    order = np.random.default_rng(0).permutation(20)
    scores = method.fit(net, TIMES, y).transform(TIMES[:3])
    np.testing.assert_array_equal(method.fit(net, TIMES[order], y[order]).transform(TIMES[:3]), scores[:, order])
    for container in (pd.DataFrame, torch.from_numpy, np.ndarray.tolist):
        np.testing.assert_array_equal(method.fit(net, container(TIMES), y).transform(TIMES[:3]), scores)


def test_rows_given_again_are_compared_in_every_bit(net):
    estimator = TracIn().fit(net, TIMES, y)
    estimator._require_fit_rows(TIMES, y)
    with pytest.raises(ValueError, match="training rows given to fit"):
        estimator._require_fit_rows(LATER, y)


def test_float32_of_the_same_rows(net):
    """Of numbers that float32 rounds the other side is said."""
    with pytest.warns(UserWarning, match="float32"):
        TracIn().fit(net, TIMES.astype(np.float32), y.astype(np.float32))


def test_a_record_of_float32_takes_both():
    """A scaler gives float64, and what the net was trained on is that in float32: the usual case."""
    X = np.random.default_rng(0).normal(size=(20, 1))
    targets = np.sin(X)
    small = [a.astype(np.float32) for a in (X, targets)]
    net = train(*small, module__dtype=torch.float32)
    assert Trajectory.from_net(net).stages[0].exact_hashes is None
    wide = TracIn().fit(net, X, targets).transform(X[:3])
    np.testing.assert_array_equal(TracIn().fit(net, *small).transform(small[0][:3]), wide)


def test_queries_of_a_truth():
    outputs = np.random.default_rng(0).normal(size=(8, 1, 20))
    masks = np.random.default_rng(1).random((8, 20)) < 0.5
    truth = Retraining(masks, outputs, "prediction", np.arange(8)[:, None], X_query=TIMES)
    estimator = EmpiricalInfluence(truth).fit(TIMES, y)
    whole = estimator.transform(TIMES)
    assert len(np.unique(whole[:, 0])) == 20
    np.testing.assert_array_equal(estimator.transform(TIMES[[4, 2]]), whole[[4, 2]])
    np.testing.assert_array_equal(estimator.self_influence(), np.diagonal(whole))
    with pytest.raises(ValueError, match="1 of 20 queries are not among those"):
        estimator.transform(LATER)


@pytest.mark.parametrize(
    "X",
    [
        TIMES, TIMES.tolist(), torch.from_numpy(TIMES), pd.DataFrame(TIMES),
        {"a": TIMES, "b": np.ones((20, 1), np.float32)},
        torch.utils.data.TensorDataset(torch.from_numpy(TIMES), torch.ones(20)),
    ],
)  # fmt: skip
def test_what_float32_cannot_hold(X):
    hashes = exact_row_hashes(X)
    assert len(np.unique(hashes)) == 20


@pytest.mark.parametrize(
    "X", [np.round(TIMES / 128) * 128, TIMES.astype(np.float32), np.arange(20)[:, None], ["a", "b"], None]
)
def test_what_float32_holds(X):
    assert exact_row_hashes(X) is None
