"""``n_jobs`` of the gradient methods: the numbers of one worker, whatever is asked for and however it is given.

Threads stand for workers here: everything is packed and opened for them as for processes, which
``tests/robustness/test_worker_processes.py`` starts.
"""

from __future__ import annotations

import pickle
import random

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch import NeuralNetRegressor
from skorch.dataset import Dataset

import sklearn_source.utils._workers as workers
from sklearn_source import (
    TRAK,
    AttributionEnsemble,
    GradientSimilarity,
    InfluenceFunctions,
    RepresentationSimilarity,
    SnapshotInfluence,
    SourceAttribution,
    TracIn,
    config_context,
)
from sklearn_source.curvature import EKFAC, KFAC, Diagonal
from sklearn_source.utils._random import seeded
from tests._methods import GRADIENT_METHODS
from tests._nets import make_net

_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(90, 3))
y = X[:, :1] - X[:, 1:2] ** 2
X_query = _RNG.normal(size=(7, 3))


@pytest.fixture(autouse=True)
def threads():
    with joblib.parallel_config("threading"):
        yield


@pytest.fixture
def packed(monkeypatch):
    """How many parcels were made."""
    made = []

    class Counted(workers.Parcel):
        def __init__(self, content):
            made.append(content)
            super().__init__(content)

    monkeypatch.setattr(workers, "Parcel", Counted)
    return made


def trained(**options):
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with seeded(0):
            return make_net(batch_size=32, **options).fit(X, y)
    finally:
        torch.set_default_dtype(before)


@pytest.fixture(scope="module")
def net():
    return trained()


@pytest.fixture(scope="module")
def adaptive():
    return trained(optimizer=torch.optim.AdamW, lr=0.01)


def seeded_clone(estimator):
    names = estimator.get_params(deep=False)
    return clone(estimator).set_params(**({"random_state": 0} if "random_state" in names else {}))


def same(one, other):
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * np.abs(other).max())


@pytest.mark.parametrize("cls", GRADIENT_METHODS)
def test_every_gradient_method_scores_alike(cls, net, packed):
    est = seeded_clone(cls()).fit(net, X, y)
    scores, top, own = est.transform(X_query), est.top_influences(X_query, k=4), est.self_influence()
    assert not packed  # one worker has nothing sent to it
    est.set_params(n_jobs=2)
    same(est.transform(X_query), scores)
    other = est.top_influences(X_query, k=4)
    np.testing.assert_array_equal(other.indices, top.indices)
    same(other.scores, top.scores)
    same(est.self_influence(), own)
    assert len(packed) == 3


@pytest.mark.parametrize(
    "est",
    [TRAK(n_components=8, batch_size=8), TRAK(n_checkpoints=2, batch_size=8), RepresentationSimilarity(batch_size=8)],
    ids=["trak", "trak at two checkpoints", "representations"],
)
def test_features_of_training_rows_alike(est, net, packed):
    one = seeded_clone(est).fit(net, X, y)
    assert not packed
    two = seeded_clone(est).set_params(n_jobs=2).fit(net, X, y)
    assert len(packed) == 1
    np.testing.assert_array_equal(two.transform(X_query), one.transform(X_query))
    np.testing.assert_array_equal(two.self_influence(), one.self_influence())
    assert len(packed) == 1  # queries meet features that are here


class Lengths(torch.nn.Module):
    """Activations of another length for some rows."""

    def __init__(self):
        super().__init__()
        self.hidden, self.last = torch.nn.Identity(), torch.nn.Linear(1, 1)

    def forward(self, X):
        n = 3 if bool((X[:, 0] < 1.5).all()) else 2
        return self.last(self.hidden(X[:, :n]).mean(1, keepdim=True))


def test_features_of_several_lengths_are_refused_alike():
    X = np.zeros((64, 3), np.float32)
    X[:, 1], X[60:, 0] = np.arange(64), 2
    with seeded(0):
        net = NeuralNetRegressor(Lengths, max_epochs=1, train_split=None, verbose=0).fit(X, X[:, :1])
    for n_jobs in (1, 2):
        est = RepresentationSimilarity(layer="hidden", batch_size=4, n_jobs=n_jobs)
        with pytest.raises(ValueError, match="activations of one size per row"):
            est.fit(net, X, X[:, :1])


def test_a_store_is_written_alike(net, tmp_path, packed):
    est = SourceAttribution(n_segments=2, random_state=0, batch_size=8)
    with config_context(memory_budget=100_000):
        est.fit(net, X, y).store_gradients(tmp_path / "one")
        assert not packed
        est.set_params(n_jobs=2).store_gradients(tmp_path / "two")
    assert len(packed) == 1
    one, two = ({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert len(one) > 2
    assert one == two


FITTED = {
    "source": SourceAttribution(n_segments=2),
    "influence": InfluenceFunctions(),
    "snapshots": SnapshotInfluence(n_snapshots=2),
    "kfac": InfluenceFunctions(curvature=KFAC(basis="shampoo")),
    "diagonal": InfluenceFunctions(curvature=Diagonal()),
    "sampled": SourceAttribution(curvature=EKFAC(fisher="sampled", n_samples=2)),
    "exact": InfluenceFunctions(curvature="exact"),
}


@pytest.mark.parametrize("name, optimizer", [*((name, "net") for name in FITTED), ("source", "adaptive")])
def test_fits_alike(name, optimizer, request, packed):
    trained_net, est = request.getfixturevalue(optimizer), seeded_clone(FITTED[name])
    expected = est.fit(trained_net, X, y).transform(X_query)
    assert not packed
    fitted = clone(est).set_params(n_jobs=3).fit(trained_net, X, y)
    assert bool(packed) == (name != "exact")  # which holds every column, and has no sums to share
    same(fitted.set_params(n_jobs=1).transform(X_query), expected)


def test_columns_are_those_of_one_worker_bit_for_bit_where_batches_are_whole(net):
    est = TracIn(batch_size=8).fit(net, X, y)
    scores = est.transform(X_query)
    np.testing.assert_array_equal(est.set_params(n_jobs=2).transform(X_query), scores)


def test_none_is_what_the_context_says(net, packed):
    est = TracIn(batch_size=8).fit(net, X, y)
    est.transform(X_query)
    assert not packed
    with joblib.parallel_config("threading", n_jobs=2):
        est.transform(X_query)
    assert len(packed) == 1


def test_files_of_scores_and_small_budgets(net, tmp_path, packed):
    est = SourceAttribution(n_segments=2, random_state=0).fit(net, X, y)
    with config_context(memory_budget=8000):
        scores = est.transform(X_query)
        est.set_params(n_jobs=2)
        same(est.transform(X_query, out=tmp_path / "scores.npy"), scores)
        assert len(packed) > 1  # one for every part of the queries
        array = np.zeros(scores.shape)
        same(est.transform(X_query, out=array), scores)
        n_packed = len(packed)
        est.set_params(n_jobs=1).transform(X_query, out=tmp_path / "scores.npy")  # as known as before, and whole
        assert len(packed) == n_packed


def test_tolerances_are_kept(net):
    est = SourceAttribution(tol=0.3, random_state=0).fit(net, X, y)
    scores = est.transform(X_query)
    same(est.set_params(n_jobs=2).transform(X_query), scores)


class Squares(torch.utils.data.Dataset):
    """Rows that are made when they are asked for."""

    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return X[index].astype(np.float32), y[index].astype(np.float32)


@pytest.mark.parametrize("rows", [Squares(), Dataset(X.astype("float32"), y.astype("float32"))], ids=["own", "skorch"])
def test_rows_of_a_dataset(rows):
    with seeded(0):
        net = make_net(batch_size=32).fit(rows, None)
    est = InfluenceFunctions(random_state=0, batch_size=16).fit(net, rows)
    scores = est.transform(X_query.astype(np.float32))
    np.testing.assert_array_equal(est.set_params(n_jobs=2).transform(X_query.astype(np.float32)), scores)


def test_statistics_on_disk_serve_both(net, tmp_path, packed):
    est = SourceAttribution(curvature=EKFAC(memory=tmp_path), random_state=0)
    expected = est.set_params(n_jobs=2).fit(net, X, y).transform(X_query)
    n_packed = len(packed)
    same(est.set_params(n_jobs=1).fit(net, X, y).transform(X_query), expected)
    assert len(packed) == n_packed


def test_groups_of_rows_are_removed_alike(net):
    est = TracIn(batch_size=8).fit(net, X, y)
    weights = np.ones((2, len(X)))
    weights[0, :9] = weights[1, 30:50] = 0
    expected = est.predict_reweighting(X_query, weights=weights)
    same(est.set_params(n_jobs=2).predict_reweighting(X_query, weights=weights), expected)


def test_errors_name_what_those_of_one_worker_name():
    est = TracIn(batch_size=8, n_jobs=2).fit(trained(), X, y)
    with torch.no_grad():
        for state, _, _ in est._checkpoint_terms:
            next(iter(state.parameters.values())).fill_(1e200)
    with pytest.raises(ValueError, match="not finite|non-finite"):
        est.transform(X_query)


def test_what_is_the_users_stays_as_it_is(net):
    est = SourceAttribution(n_jobs=2, random_state=0)
    before = pickle.dumps(net.module_.state_dict())
    numpy_state, python_state, torch_state = np.random.get_state()[1].copy(), random.getstate(), torch.get_rng_state()
    est.fit(net, X, y).transform(X_query)
    assert pickle.dumps(net.module_.state_dict()) == before
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    assert random.getstate() == python_state
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert not [handle for module in net.module_.modules() for handle in module._forward_hooks]


def test_members_of_an_ensemble_share_rows_when_they_score_and_not_within_a_worker(net, packed):
    ensemble = AttributionEnsemble(
        GradientSimilarity(make_net(batch_size=32), n_jobs=2, batch_size=8), n_members=2, random_state=0
    )
    ensemble.fit(X.astype(np.float32), y.astype(np.float32)).transform(X_query.astype(np.float32))
    assert len(packed) == 2


def test_n_jobs_that_are_none_are_refused(net):
    with pytest.raises(ValueError, match="n_jobs"):
        TracIn(n_jobs="two").fit(net, X, y)
    with pytest.raises(ValueError, match="n_jobs"):
        TracIn(n_jobs=0).fit(net, X, y).transform(X_query)
