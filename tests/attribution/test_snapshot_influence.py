"""Influence functions over the snapshots of one run: against those of trainings that ended there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklearn_source import InfluenceFunctions, SnapshotInfluence, TrajectoryRecorder
from sklearn_source.curvature import EKFAC, ExactGaussNewton
from sklearn_source.utils._random import seeded

N_EPOCHS = 4


class Net(nn.Module):
    def __init__(self, n_outputs=1):
        super().__init__()
        layers = nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, n_outputs)
        self.layers = nn.Sequential(*layers).double()

    def forward(self, x):
        return self.layers(x)


def rows(task):
    rng = np.random.default_rng(0)
    X, X_query = rng.normal(size=(24, 3)), rng.normal(size=(5, 3))
    if task == "regression":
        return X, np.sin(X[:, :1]) + 0.1 * rng.normal(size=(24, 1)), X_query, None
    return X, rng.integers(0, 3, 24), X_query, rng.integers(0, 3, 5)


def trained(task, optimizer, n_epochs=N_EPOCHS, n_checkpoints=N_EPOCHS, **options):
    kind, module = (
        (NeuralNetRegressor, {})
        if task == "regression"
        else (NeuralNetClassifier, {"module__n_outputs": 3, "criterion": nn.CrossEntropyLoss})
    )
    recipe = {
        "SGD": {"optimizer": torch.optim.SGD, "lr": 0.1, "optimizer__momentum": 0.5, "optimizer__weight_decay": 0.01},
        "AdamW": {"optimizer": torch.optim.AdamW, "lr": 0.01, "optimizer__weight_decay": 0.1},
    }[optimizer]
    X, y, _, _ = rows(task)
    net = kind(
        Net, **module, **recipe, **options, max_epochs=n_epochs, batch_size=8, train_split=None, verbose=0,
        callbacks=[TrajectoryRecorder(n_checkpoints)],
    )  # fmt: skip
    with seeded(0):  # the same epochs, however many
        return net.fit(X, y)


CURVATURES = {
    "uncoupled": EKFAC(coupling=None),
    "layers": EKFAC(),
    "sample": ExactGaussNewton(max_rows=1000),
}


@pytest.mark.parametrize("curvature", CURVATURES)
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
@pytest.mark.parametrize("task", ["regression", "classification"])
def test_the_mean_over_trainings_that_ended_at_the_snapshots(task, optimizer, curvature):
    """The same net trained for fewer epochs, each with influence functions of its own."""
    X, y, X_query, y_query = rows(task)
    net = trained(task, optimizer, n_checkpoints=None)
    whole = SnapshotInfluence(curvature=CURVATURES[curvature], n_snapshots=N_EPOCHS).fit(net, X, y)
    assert whole.steps_.tolist() == [3, 6, 9, 12]
    each, groups = [], [[0, 1, 2], [5]]
    for n_epochs in range(1, N_EPOCHS + 1):
        net = trained(task, optimizer, n_epochs, 1)
        each.append(InfluenceFunctions(curvature=CURVATURES[curvature], damping="trajectory").fit(net, X, y))
    expected = np.mean([est.transform(X_query, y_query) for est in each], axis=0)
    np.testing.assert_allclose(whole.transform(X_query, y_query), expected, rtol=1e-5, atol=1e-6 * abs(expected).max())
    for found, est in zip(whole.damping_, each):
        assert found == pytest.approx(est.damping_)
    expected = np.mean([est.predict_reweighting(X_query, y_query, groups=groups) for est in each], axis=0)
    found = whole.predict_reweighting(X_query, y_query, groups=groups)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("damping", ["mean_eigenvalue", 0.3])
def test_other_dampings(damping):
    X, y, X_query, y_query = rows("classification")
    net = trained("classification", "SGD", n_checkpoints=None)
    whole = SnapshotInfluence(damping=damping, n_snapshots=N_EPOCHS).fit(net, X, y)
    each = [
        InfluenceFunctions(damping=damping).fit(trained("classification", "SGD", n, 1), X, y)
        for n in range(1, N_EPOCHS + 1)
    ]
    expected = np.mean([est.transform(X_query, y_query) for est in each], axis=0)
    np.testing.assert_allclose(whole.transform(X_query, y_query), expected, rtol=1e-5, atol=1e-6 * abs(expected).max())


def test_the_last_alone_is_influence_functions():
    X, y, X_query, _ = rows("regression")
    net = trained("regression", "SGD")
    one = SnapshotInfluence(n_snapshots=1).fit(net, X, y)
    last = InfluenceFunctions().fit(net, X, y)
    assert one.steps_.tolist() == [12]
    np.testing.assert_allclose(one.transform(X_query), last.transform(X_query), rtol=1e-6)


def test_snapshots_are_equally_spaced_and_of_the_last_stage():
    X, y, X_query, _ = rows("regression")
    net = trained("regression", "SGD", n_checkpoints=None)
    assert SnapshotInfluence(n_snapshots=3).fit(net, X, y).steps_.tolist() == [4, 8, 12]
    net.set_params(max_epochs=2).partial_fit(X, y)
    est = SnapshotInfluence(n_snapshots=2).fit(net, X, y)
    assert est.steps_.tolist() == [15, 18]
    first, last = (list(dampings.values())[0] for dampings in est.damping_)
    # One over the rate of all steps so far, those of both stages; some of the last steps' pull is still to come.
    assert first / last == pytest.approx((18 - 1) / (15 - 1), rel=1e-4)
    assert np.isfinite(est.transform(X_query)).all()


def test_too_few_checkpoints_are_said():
    X, y, _, _ = rows("regression")
    with pytest.raises(ValueError, match=r"at least 9 checkpoints .* it has 4"):
        SnapshotInfluence(n_snapshots=9).fit(trained("regression", "SGD"), X, y)


def test_stages_with_other_rows_are_warned_of():
    X, y, _, _ = rows("regression")
    net = trained("regression", "SGD")
    other = X[::-1] + 1.0
    net.set_params(max_epochs=2).partial_fit(other, y)
    with pytest.warns(UserWarning, match="in stages with other rows"):
        SnapshotInfluence().fit(net, np.concatenate([X, other]), np.concatenate([y, y]))


def test_a_bare_net_records_its_snapshots():
    X, y, _, _ = rows("regression")
    net = trained("regression", "SGD")
    bare = NeuralNetRegressor(Net, lr=0.1, max_epochs=4, batch_size=8, train_split=None, verbose=0)
    assert len(SnapshotInfluence(bare, random_state=0).fit(X, y).steps_) == 8
    assert len(SnapshotInfluence(bare, n_snapshots=10, random_state=0).fit(X, y).steps_) == 10
    assert net.history[-1]["epoch"] == N_EPOCHS
