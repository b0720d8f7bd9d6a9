"""Training rows and queries that come by loaders and streams: the scores of arrays, bit for bit."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, SequentialSampler, TensorDataset, default_collate

from sklearn_source import (
    TRAK,
    AttributionEnsemble,
    InfluenceFunctions,
    RepresentationSimilarity,
    SourceAttribution,
    TracIn,
    Trajectory,
    TrajectoryRecorder,
)
from sklearn_source.curvature import EKFAC
from sklearn_source.retraining import retrain_on_subsets
from sklearn_source.utils._random import seeded
from tests._nets import make_net
from tests._streams import AsDicts, pair

N = 96
_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(N, 3)).astype(np.float32)
y = (X[:, :1] - X[:, 1:2] ** 2).astype(np.float32)
QUERIES, TARGETS = _RNG.normal(size=(11, 3)).astype(np.float32), _RNG.normal(size=(11, 1)).astype(np.float32)
DATA = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
ORDER = np.random.default_rng(1).permutation(N)


class Rows(IterableDataset):
    def __init__(self, X=X, y=y):
        self.X, self.y = X, y

    def __iter__(self):
        yield from zip(self.X, self.y)


class Batches:
    def __iter__(self):
        for start in range(0, N, 17):
            yield X[start : start + 17], y[start : start + 17]


class Shuffled(Rows):
    def __iter__(self):
        order = torch.randperm(N).numpy()
        yield from zip(X[order], y[order])


@pytest.fixture(scope="module")
def net():
    with seeded(0):
        return make_net(callbacks=[TrajectoryRecorder(n_checkpoints=2)], batch_size=32).fit(X, y)


METHODS = {
    "source": SourceAttribution(n_segments=2, random_state=0, batch_size=40),
    "influence": InfluenceFunctions(random_state=0, batch_size=40),
    "sampled": InfluenceFunctions(
        curvature=EKFAC(fisher="sampled", n_samples=1), random_state=0, measurement="neg_loss"
    ),
    "tracin": TracIn(batch_size=40),
    "trak": TRAK(n_components=8, random_state=0),
    "representation": RepresentationSimilarity(),
}
STREAMS = {
    "rows": Rows,
    "batches": Batches,
    "loader of a stream": lambda: DataLoader(Rows(), batch_size=41),
    "shuffling loader of a dataset": lambda: DataLoader(DATA, shuffle=True, batch_size=13),
}


@pytest.mark.parametrize("name", METHODS)
def test_scores_of_streams_are_those_of_arrays(net, name, tmp_path):
    est = METHODS[name]
    est.fit(net, X, y)
    expected, hashes = est.transform(QUERIES, TARGETS), est.row_hashes_
    top = est.top_influences(QUERIES, TARGETS, k=4)
    own = est.self_influence() if hasattr(est, "self_influence") else None
    for make in STREAMS.values() if name == "influence" else [Rows]:
        before = torch.get_rng_state()
        est.fit(net, make(), None)
        assert np.array_equal(est.transform(QUERIES, TARGETS), expected)
        assert torch.equal(torch.get_rng_state(), before)
        assert np.array_equal(est.row_hashes_, hashes)
    est.fit(net, Batches(), None)
    assert all(np.array_equal(a, b) for a, b in zip(est.top_influences(QUERIES, TARGETS, k=4), top))
    assert own is None or np.array_equal(est.self_influence(), own)
    assert np.array_equal(est.transform(QUERIES, TARGETS, out=tmp_path / "scores.npy"), expected)


def test_rows_in_another_order_than_trained_on(net):
    scores = InfluenceFunctions(random_state=0).fit(net, X, y).transform(QUERIES)
    est = InfluenceFunctions(random_state=0).fit(net, Rows(X[ORDER], y[ORDER]), None)
    np.testing.assert_allclose(est.transform(QUERIES), scores[:, ORDER], rtol=1e-3, atol=1e-5 * abs(scores).max())


def test_what_else_reads_the_rows(net, tmp_path):
    arrays, stream = (InfluenceFunctions(random_state=0).fit(net, *data) for data in ((X, y), (Rows(), None)))
    groups = {"a": np.arange(9)}
    effects = [est.predict_reweighting(QUERIES, groups=groups) for est in (arrays, stream)]
    np.testing.assert_array_equal(*effects)
    stored = [est.store_gradients(tmp_path / "store").transform(QUERIES) for est in (stream, arrays)]  # one folder
    np.testing.assert_array_equal(*stored)
    stream.store_gradients(None)
    again = pickle.loads(pickle.dumps(stream))
    np.testing.assert_array_equal(again.transform(QUERIES), arrays.store_gradients(None).transform(QUERIES))
    with pytest.raises(TypeError, match="a stream, whose targets come with its rows and cannot be replaced: fit"):
        stream.predict_relabeling(QUERIES, y_train=y)


def test_a_file_of_scores_is_gone_on_from_whatever_holds_the_rows(net, tmp_path):
    path = tmp_path / "scores.npy"
    InfluenceFunctions(random_state=0).fit(net, X, y).transform(QUERIES, out=path)
    InfluenceFunctions(random_state=0).fit(net, Batches(), None).transform(QUERIES, out=path)


def test_queries(net):
    est = InfluenceFunctions(random_state=0, measurement="neg_loss").fit(net, X, y)
    expected = est.transform(QUERIES, TARGETS)
    pairs = TensorDataset(torch.from_numpy(QUERIES), torch.from_numpy(TARGETS))
    for queries in (DataLoader(pairs, batch_size=4, shuffle=True), DataLoader(Rows(QUERIES, TARGETS), batch_size=3)):
        np.testing.assert_array_equal(est.transform(queries), expected)
    ensemble = AttributionEnsemble(TracIn(), n_members=2, random_state=0).fit(net, X, y)
    np.testing.assert_array_equal(
        ensemble.transform(DataLoader(pairs, batch_size=4), None), ensemble.transform(QUERIES, TARGETS)
    )


def test_streams_that_change_leave_the_estimator_as_it_was(net):
    est = InfluenceFunctions(random_state=0).fit(net, X, y)
    expected = est.transform(QUERIES)
    with pytest.raises(ValueError, match="of the stream is another than in its first pass"):
        est.fit(net, Shuffled(), None)
    with pytest.raises(TypeError, match="which gives them once"):
        est.fit(net, zip(X, y))
    with pytest.raises(ValueError, match="not the rows that the network was trained on"):
        est.fit(net, Rows(X + 1), None)
    np.testing.assert_array_equal(est.transform(QUERIES), expected)


def test_a_loader_with_a_collate_function_of_its_own(net):
    def doubled(items):
        x, target = default_collate(items)
        return 2 * x, target

    loader = DataLoader(DATA, collate_fn=doubled)
    twice = InfluenceFunctions(random_state=0).fit(make_net(recorded=False).fit(2 * X, y), 2 * X, y)
    est = InfluenceFunctions(random_state=0).fit(twice.net_, loader, None)
    np.testing.assert_array_equal(est.transform(QUERIES), twice.transform(QUERIES))
    with pytest.raises(ValueError, match="got two"):
        est.fit(make_net(iterator_train__collate_fn=default_collate).fit(X, y), loader, None)
    with pytest.raises(ValueError, match="a collate_fn of its own"):
        InfluenceFunctions(make_net()).fit(loader, None)
    with pytest.raises(ValueError, match="a collate_fn of its own"):
        retrain_on_subsets(net, loader, None, QUERIES, n_subsets=2)


def test_what_trains_networks_takes_loaders_of_datasets_alone(net):
    truths = [
        retrain_on_subsets(net, data, target, QUERIES, n_subsets=2, random_state=0).outputs
        for data, target in ((X, y), (DataLoader(DATA, shuffle=True), None))
    ]
    np.testing.assert_allclose(*truths, rtol=1e-5)
    for stream in (Rows(), DataLoader(Rows())):
        with pytest.raises(TypeError, match="arrays or a map-style Dataset, got a stream"):
            retrain_on_subsets(net, stream, None, QUERIES, n_subsets=2)
    for given in ((Rows, None, QUERIES), (X, y, Rows), (lambda: iter(DATA), None, QUERIES)):
        with pytest.raises(TypeError, match="expected (rows|X_query), got the (class|function)"):
            retrain_on_subsets(net, *given, n_subsets=2)
    with pytest.raises(TypeError, match="train the net yourself"):
        InfluenceFunctions(make_net()).fit(Rows(), None)


def test_training_from_a_stream_is_recorded(net):
    options = {"batch_size": 40, "iterator_train__shuffle": False}
    with seeded(0):
        streamed = make_net(**options).fit(Rows(), None)
    with seeded(0):  # a sampler of the user's is watched, as a stream is
        watched = make_net(**options, iterator_train__sampler=SequentialSampler(DATA)).fit(X, y)
    (stage,), (other,) = (Trajectory.from_net(each).stages for each in (streamed, watched))
    assert stage.n_rows == N
    assert np.array_equal(stage.row_hashes, other.row_hashes)
    scores = [
        SourceAttribution(n_segments=2, random_state=0).fit(*fitted).transform(QUERIES)
        for fitted in ((watched, X, y), (streamed, X, y), (streamed, Batches(), None))
    ]
    np.testing.assert_array_equal(scores[1], scores[0])
    np.testing.assert_array_equal(scores[2], scores[0])
    with seeded(0):
        shuffled = make_net(**options).fit(Shuffled(), None)  # trained in an order of each epoch's own
    assert SourceAttribution(n_segments=2, random_state=0).fit(shuffled, X, y).transform(QUERIES).any()


class Dicts(AsDicts, Rows):
    pass


def test_rows_that_are_dicts(net):
    """Hugging Face's streams and tables: put into pairs by a collate function, of the net or of a loader."""
    expected = SourceAttribution(n_segments=2, random_state=0).fit(net, X, y).transform(QUERIES)
    with seeded(0):
        streamed = make_net(
            callbacks=[TrajectoryRecorder(n_checkpoints=2)], batch_size=32, iterator_train__collate_fn=pair,
            iterator_train__shuffle=False,
        ).fit(Dicts(), None)  # fmt: skip
    (stage,) = Trajectory.from_net(streamed).stages
    assert (stage.draws[stage.end][1] == 3).all()  # every row of the batches was recognised, once an epoch
    for rows in (
        DataLoader(Dicts(), 20, collate_fn=pair),
        DataLoader(list(Dicts()), 20, shuffle=True, collate_fn=pair),
    ):
        est = SourceAttribution(n_segments=2, random_state=0).fit(net, rows, None)
        np.testing.assert_array_equal(est.transform(QUERIES), expected)
    scores = [
        SourceAttribution(n_segments=2, random_state=0).fit(streamed, rows, None).transform(QUERIES)
        for rows in (Dicts(), DataLoader(Dicts(), 20, collate_fn=pair))
    ]
    np.testing.assert_array_equal(*scores)
    with pytest.raises(
        ValueError, match="unexpected keyword argument 'y'.*where the targets are among them, give pairs"
    ):
        InfluenceFunctions(random_state=0).fit(make_net(recorded=False).fit(X, y), Dicts(), None)
