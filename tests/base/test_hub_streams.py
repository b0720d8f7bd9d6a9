"""Rows from Hugging Face's data sets and from webdataset's shards, where these packages are installed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch import NeuralNetRegressor
from torch.utils.data import DataLoader

from sklearn_source import InfluenceFunctions, SourceAttribution, TrajectoryRecorder
from sklearn_source.utils._random import seeded
from tests._nets import make_net
from tests._streams import pair

N = 80
_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(N, 3)).astype(np.float32)
y = (X[:, :1] - X[:, 1:2] ** 2).astype(np.float32)
QUERIES = _RNG.normal(size=(4, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def net():
    with seeded(0):
        return make_net(batch_size=20, callbacks=[TrajectoryRecorder(n_checkpoints=2)]).fit(X, y)


@pytest.fixture(scope="module")
def expected(net):
    return SourceAttribution(random_state=0).fit(net, X, y).transform(QUERIES)


@pytest.fixture(scope="module")
def table():
    datasets = pytest.importorskip("datasets")
    return datasets.Dataset.from_dict({"X": X.tolist(), "y": y.tolist()}).with_format("torch")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    webdataset = pytest.importorskip("webdataset")
    folder = tmp_path_factory.mktemp("shards")
    for shard in range(2):
        with webdataset.TarWriter(str(folder / f"{shard}.tar")) as writer:
            for i in range(shard * N // 2, (shard + 1) * N // 2):
                writer.write({"__key__": f"{i:03}", "x.npy": X[i], "y.npy": y[i]})
    return str(folder / "{0..1}.tar")


def test_tables_and_streams_of_hugging_face(net, expected, table):
    stream = table.to_iterable_dataset(num_shards=2)
    for rows in (table, stream):
        est = SourceAttribution(random_state=0).fit(net, DataLoader(rows, 20, collate_fn=pair), None)
        np.testing.assert_array_equal(est.transform(QUERIES), expected)
    shuffled = SourceAttribution(random_state=0).fit(
        net, DataLoader(stream.shuffle(seed=0, buffer_size=N), 20, collate_fn=pair), None
    )
    np.testing.assert_allclose(np.sort(shuffled.transform(QUERIES)), np.sort(expected), rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="where the targets are among them, give pairs"):
        InfluenceFunctions().fit(net, stream, None)


class Named(torch.nn.Linear):
    def forward(self, X):
        return super().forward(X)


def test_a_table_of_inputs_by_name(table):
    inputs = table.select_columns(["X"])
    with seeded(0):
        net = NeuralNetRegressor(
            Named, module__in_features=3, module__out_features=1, train_split=None, max_epochs=2, verbose=0,
            callbacks=[TrajectoryRecorder(n_checkpoints=1)],
        ).fit(inputs, y)  # fmt: skip
    expected = SourceAttribution(random_state=0).fit(net, {"X": X}, y).transform({"X": QUERIES})
    est = SourceAttribution(random_state=0).fit(net, inputs, y)
    np.testing.assert_array_equal(est.transform({"X": QUERIES}), expected)
    np.testing.assert_array_equal(est.transform(inputs.select(range(2))), est.transform({"X": X[:2]}))


def test_shards_of_webdataset(net, expected, shards):
    webdataset = pytest.importorskip("webdataset")

    def pipeline(**options):
        return webdataset.WebDataset(shards, shardshuffle=False, **options).decode().to_tuple("x.npy", "y.npy")

    for rows in (
        pipeline(),
        pipeline().batched(7),
        webdataset.WebLoader(pipeline().batched(7), batch_size=None),
        webdataset.WebLoader(pipeline(), batch_size=7).unbatched(),
    ):
        est = SourceAttribution(random_state=0).fit(net, rows, None)
        np.testing.assert_array_equal(est.transform(QUERIES), expected)
    with pytest.raises(ValueError, match="row 0 of the stream is another than in its first pass"):
        est.fit(net, pipeline().shuffle(N), None)
    undecoded = webdataset.WebDataset(shards, shardshuffle=False).to_tuple("x.npy", "y.npy")
    with pytest.raises(ValueError, match="undecoded bytes"):
        est.transform(undecoded)
