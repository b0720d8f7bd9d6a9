"""``transform(X, out=)``: the scores of a plain call, and what becomes of files of other scores."""

from __future__ import annotations

import errno
import json
import os

import numpy as np
import pytest
import torch
from sklearn import config_context as sklearn_config
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import Bunch
from skorch.dataset import Dataset, ValidSplit

from sklearn_source import (
    TRAK,
    AttributionEnsemble,
    EmpiricalInfluence,
    InfluenceFunctions,
    LoRAEnsemble,
    RepresentationSimilarity,
    SourceAttribution,
    TracIn,
    config_context,
)
from sklearn_source.base import BaseAttribution, QueryBatches, _score_file
from sklearn_source.base._score_slabs import ScoreSlabs
from sklearn_source.curvature import EKFAC
from sklearn_source.utils._random import seeded
from tests._nets import make_net

_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(24, 3)).astype(np.float32)
y = (X[:, :1] - X[:, 1:2] ** 2).astype(np.float32)
X_query = _RNG.normal(size=(17, 3)).astype(np.float32)
SMALL = 3000  # bytes of a budget that holds the vectors of some queries


@pytest.fixture(scope="module")
def net():
    with seeded(0):
        return make_net().fit(X, y)


METHODS = {
    "source": SourceAttribution(n_segments=2, random_state=0),
    "influence": InfluenceFunctions(random_state=0),
    "tracin": TracIn(batch_size=7),
    "trak": TRAK(n_components=8, random_state=0),
    "representation": RepresentationSimilarity(),
    "adapters": LoRAEnsemble(n_members=2, n_steps=4, random_state=0),
}


def empirical():
    masks = np.random.default_rng(1).random((12, 24)) < 0.5
    truth = Bunch(masks=masks, outputs=np.random.default_rng(2).normal(size=(12, 1, 17)))
    return EmpiricalInfluence(truth, X_query=X_query).fit(X)


def record_of(path):
    return path.with_name(f"{path.name}.progress.json")


def edit(path, **changes):
    record = json.loads(record_of(path).read_text())
    record_of(path).write_text(json.dumps({**record, **changes}))


@pytest.fixture
def source(net):
    fitted = clone(METHODS["source"]).fit(net, X, y)
    with config_context(memory_budget=SMALL):
        assert 3 < len(fitted._query_batches(X_query, None)[1].slices) < 10
        yield fitted


class Store:
    """What a zarr array is to this package: a shape, a dtype, and slices that are assigned to."""

    dtype = np.dtype("float32")

    def __init__(self, shape):
        self.shape, self.kept, self.writes = shape, np.full(shape, np.nan, dtype=np.float32), []

    def __setitem__(self, where, values):
        assert all(isinstance(part, slice) for part in where)
        assert isinstance(values, np.ndarray)
        self.writes.append(where)
        self.kept[where] = values


@pytest.mark.parametrize("name", [*METHODS, "empirical"])
def test_the_scores_of_a_plain_call(name, net, tmp_path):
    path = tmp_path / "scores.npy"
    fitted = empirical() if name == "empirical" else clone(METHODS[name]).fit(net, X, y)
    with config_context(memory_budget=SMALL):
        expected = fitted.transform(X_query)
        found = fitted.transform(X_query, out=path)
        assert isinstance(found, np.memmap)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(np.load(path), expected)
        for out in (
            np.full(expected.shape, np.nan),
            np.lib.format.open_memmap(tmp_path / "m", "w+", "f4", shape=expected.shape),
        ):
            assert fitted.transform(X_query, out=out) is out
            np.testing.assert_array_equal(out, expected)
        store = Store(expected.shape)
        assert fitted.transform(X_query, out=store) is store
        np.testing.assert_array_equal(store.kept, expected)


def test_a_finished_file_comes_at_once_and_read_only(source, tmp_path, monkeypatch):
    path = tmp_path / "scores.npy"
    expected = np.array(source.transform(X_query, out=str(path)))
    before = path.stat().st_mtime_ns, record_of(path).read_text()
    monkeypatch.setattr(type(source), "_batch_scores", _only(type(source)._batch_scores, 1))
    found = source.transform(X_query, out=path)
    np.testing.assert_array_equal(found, expected)
    assert (path.stat().st_mtime_ns, record_of(path).read_text()) == before
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = 1.0


def _only(method, n_queries):
    """A method that refuses to score more queries than that."""

    def limited(self, terms, rows, columns, n):
        assert n <= n_queries
        return method(self, terms, rows, columns, n)

    return limited


def test_blocks_that_are_not_noted_are_written_again_and_no_others(source, tmp_path):
    path = tmp_path / "scores.npy"
    expected = np.array(source.transform(X_query, out=path))
    slices = source._query_batches(X_query, None)[1].slices
    lost = slices[1]
    edit(path, done=[[0, lost.start], [lost.stop, len(X_query)]], spots={})
    stored = np.lib.format.open_memmap(path, "r+")
    stored[:] = -1.0
    stored.flush()
    found = source.transform(X_query, out=path)
    np.testing.assert_array_equal(found[lost], expected[lost])
    assert (np.delete(found, np.r_[lost], axis=0) == -1.0).all()


def test_another_budget_goes_on_with_the_queries_that_are_left(source, tmp_path):
    path = tmp_path / "scores.npy"
    expected = np.array(source.transform(X_query, out=path))
    edit(path, done=[[0, 3], [9, 12]], spots={})
    with config_context(memory_budget=SMALL // 2):
        found = source.transform(X_query, out=path)
    np.testing.assert_array_equal(found[:3], expected[:3])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert json.loads(record_of(path).read_text())["done"] == [[0, 17]]


def test_queries_without_those_that_are_done():
    batches = QueryBatches([slice(0, 5), slice(5, 10), slice(10, 15)], lambda rows: rows, str)
    left = batches.without([[0, 2], [4, 6], [10, 15]])
    assert [rows for rows, _ in left] == [slice(2, 4), slice(6, 10)]
    assert [rows for rows, _ in batches.without([])] == batches.slices


def other_scores(net):
    """Name -> (what the message says, an estimator, queries) of what is none of the file of ``source``."""
    with seeded(1):
        other_net = make_net().fit(X, y)
    with seeded(0):
        other_rows = make_net().fit(X[::-1].copy(), y[::-1].copy())
    again = clone(METHODS["source"])
    changed = X_query.copy()
    changed[5, 1] = np.nextafter(changed[5, 1], 9.0, dtype=np.float32)
    return {
        "method": ("method", METHODS["influence"].fit(net, X, y), X_query),
        "parameter": ("damping|n_segments", SourceAttribution(n_segments=1).fit(net, X, y), X_query),
        "network": ("net", clone(again).fit(other_net, X, y), X_query),
        "order": ("training rows", clone(again).fit(net, X[::-1].copy(), y[::-1].copy()), X_query),
        "rows": ("net", clone(again).fit(other_rows, X[::-1].copy(), y[::-1].copy()), X_query),
        "a bit of a query": ("queries", clone(again).fit(net, X, y), changed),
        "number of queries": ("shape", clone(again).fit(net, X, y), X_query[:5]),
    }


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_file_of_other_scores_is_refused(net, source, tmp_path):
    path = tmp_path / "scores.npy"
    source.transform(X_query, out=path)
    before = path.read_bytes(), record_of(path).read_bytes()
    for name, (said, estimator, queries) in other_scores(net).items():
        with pytest.raises(FileExistsError, match=said):
            estimator.transform(queries, out=path)
        assert (path.read_bytes(), record_of(path).read_bytes()) == before, name
    refitted = clone(METHODS["source"]).fit(net, X, y)
    np.testing.assert_array_equal(refitted.transform(X_query, out=path), source.transform(X_query))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_was_drawn_otherwise_is_refused(net, tmp_path):
    """Parameters, network and rows are the same; the projection is not."""
    path = tmp_path / "scores.npy"
    one, same, other = (TRAK(n_components=8, random_state=seed).fit(net, X, y) for seed in (0, 0, 1))
    expected = np.array(one.transform(X_query, out=path))
    np.testing.assert_array_equal(same.transform(X_query, out=path), expected)
    with pytest.raises(FileExistsError, match="same integer as random_state"):
        other.transform(X_query, out=path)
    # The first rows of the default split are none of the training: their scores are 0 whatever is drawn.
    path, two = tmp_path / "split.npy", np.hstack([y, X[:, 2:]])
    with seeded(0):
        split = make_net(train_split=ValidSplit(2), module__n_outputs=2).fit(X, two)
    one, other = (_sampled(seed).fit(split, X, two) for seed in (0, 1))
    assert not one.transform(X_query)[:, :12].any()
    one.transform(X_query, out=path)
    with pytest.raises(FileExistsError, match="same integer as random_state"):
        other.transform(X_query, out=path)
    # Who draws nothing needs no seed to go on.
    path = tmp_path / "others.npy"
    InfluenceFunctions().fit(net, X, y).transform(X_query, out=path)
    InfluenceFunctions(batch_size=5).fit(net, X, y).transform(X_query, out=path)


def _sampled(seed):
    return InfluenceFunctions(curvature=EKFAC(fisher="sampled"), output=0, random_state=seed, batch_size=4)


def test_files_that_are_none_of_ours(source, tmp_path):
    path = tmp_path / "scores.npy"
    np.save(path, np.zeros((17, 24), dtype=np.float32))
    with pytest.raises(FileExistsError, match="no scores.npy.progress.json beside it"):
        source.transform(X_query, out=path)
    path.unlink()
    source.transform(X_query, out=path)
    for spoil in (
        lambda: np.save(path, np.load(path) * -1),
        lambda: np.save(path, np.load(path).astype(np.float64)),
        lambda: path.write_bytes(path.read_bytes()[:300]),
    ):
        kept = path.read_bytes()
        spoil()
        with pytest.raises(FileExistsError, match="was changed since"):
            source.transform(X_query, out=path)
        path.write_bytes(kept)
    record_of(path).write_text('{"format"')
    with pytest.raises(FileExistsError, match="is no record of a file of scores"):
        source.transform(X_query, out=path)
    path.unlink()  # nothing is there to be lost
    np.testing.assert_array_equal(source.transform(X_query, out=path), source.transform(X_query))


def test_a_file_that_another_process_began_anew(source, tmp_path, monkeypatch):
    path = tmp_path / "scores.npy"
    original = type(source)._score_batches

    def and_meanwhile(self, queries, n_queries):
        yield from original(self, queries, n_queries)
        if n_queries > 1:
            edit(path, file="another")

    monkeypatch.setattr(type(source), "_score_batches", and_meanwhile)
    with pytest.raises(FileExistsError, match="another process"):
        source.transform(X_query, out=path)


def test_an_exception_leaves_what_was_done(source, tmp_path, monkeypatch):
    path, rows_made = tmp_path / "scores.npy", []
    original = type(source)._prepare_queries

    def failing(self, rows, index, measure):
        if len(rows_made) == 3:
            raise KeyboardInterrupt
        rows_made.append(index)
        return original(self, rows, index, measure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(source), "_prepare_queries", failing)
        with pytest.raises(KeyboardInterrupt):
            source.transform(X_query, out=path)
    done = json.loads(record_of(path).read_text())["done"]
    assert done == [[0, rows_made[-1][-1] + 1]]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scores.npy", "scores.npy.progress.json"]
    np.testing.assert_array_equal(source.transform(X_query, out=path), source.transform(X_query))


@pytest.mark.parametrize(("code", "said"), [(errno.ENOSPC, "make room"), (errno.EACCES, "make the folder writable")])
@pytest.mark.parametrize("allowed", [0, 1, 4])  # the record, the file, and the records of two blocks
def test_a_full_disk_or_a_folder_that_is_read_only(code, said, allowed, source, tmp_path, monkeypatch):
    path, atomic_write, calls = tmp_path / "scores.npy", _score_file.atomic_write, []

    def limited(place):
        calls.append(place)
        if len(calls) > allowed:
            raise OSError(code, os.strerror(code), f"{place}.tmp")
        return atomic_write(place)

    with monkeypatch.context() as patch:
        patch.setattr(_score_file, "atomic_write", limited)
        with pytest.raises(OSError, match=f"scores cannot be written.*{said}.* repeat the call") as caught:
            source.transform(X_query, out=path)
    assert (caught.value.errno, caught.value.filename) == (code, str(path))
    np.testing.assert_array_equal(source.transform(X_query, out=path), source.transform(X_query))


def test_a_disk_that_is_full_in_the_middle_of_a_block(source, tmp_path, monkeypatch):
    path, fsync, synced = tmp_path / "scores.npy", os.fsync, []

    def full(descriptor):
        synced.append(descriptor)
        if len(synced) > 4:  # the record and the file, and their folder after each
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(_score_file.os, "fsync", full)
        with pytest.raises(OSError, match=r"scores cannot be written.*make room.*'.*/scores\.npy'"):
            source.transform(X_query, out=path)
    assert path.exists()
    assert json.loads(record_of(path).read_text())["done"] == []
    np.testing.assert_array_equal(source.transform(X_query, out=path), source.transform(X_query))


def test_an_error_of_the_computation_is_none_of_the_file(source, tmp_path, monkeypatch):
    def lost(self, queries, n_queries):
        if n_queries > 1:
            raise FileNotFoundError(errno.ENOENT, "the rows are gone")
        return original(self, queries, n_queries)

    original = type(source)._score_batches
    monkeypatch.setattr(type(source), "_score_batches", lost)
    with pytest.raises(FileNotFoundError, match="the rows are gone") as caught:
        source.transform(X_query, out=tmp_path / "scores.npy")
    assert "cannot be written" not in str(caught.value)


@pytest.mark.parametrize(
    ("out", "error", "said"),
    [
        ("scores.zarr", ValueError, "ends in .npy"),
        ("missing/scores.npy", ValueError, "make the folder first"),
        (np.zeros((24, 17), np.float32), ValueError, r"\(17, 24\).* got one of shape \(24, 17\)"),
        (np.zeros((17, 24), np.int64), ValueError, "int64"),
        (np.zeros((17, 24), np.float16), ValueError, "float16"),
        (np.broadcast_to(np.float32(0), (17, 24)), ValueError, "read-only"),
        ([[0.0] * 24] * 17, TypeError, "got a list"),
        (torch.zeros(17, 24), TypeError, r"tensor.numpy\(\)"),
        (True, TypeError, "got a bool"),
    ],
)
def test_what_cannot_hold_scores(out, error, said, source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=said):
        source.transform(X_query, out=out)
    assert not list(tmp_path.iterdir())


def test_a_data_frame_cannot_be_a_file(net, tmp_path):
    pytest.importorskip("pandas")
    fitted = clone(METHODS["influence"]).fit(net, X, y).set_output(transform="pandas")
    assert fitted.transform(X_query).shape == (17, 24)
    with pytest.raises(ValueError, match="set_output"):
        fitted.transform(X_query, out=tmp_path / "scores.npy")


def test_a_pipeline_hands_it_on(net, tmp_path):
    fitted = clone(METHODS["influence"]).fit(net, X, y)
    with sklearn_config(enable_metadata_routing=True):
        pipe = make_pipeline(FunctionTransformer(), fitted.set_transform_request(out=True))
        found = pipe.transform(X_query, out=tmp_path / "scores.npy")
    np.testing.assert_array_equal(found, fitted.transform(X_query))


def test_datasets_and_ensembles_know_their_queries(net, tmp_path):
    fitted = clone(METHODS["influence"]).fit(net, X, y)
    path = tmp_path / "scores.npy"
    expected = np.array(fitted.transform(Dataset(X_query), out=path))
    np.testing.assert_array_equal(fitted.transform(X_query.astype(np.float64), out=path), expected)  # the same rows
    with pytest.raises(FileExistsError, match="queries differs"):
        fitted.transform(X_query + 1, out=path)
    path = tmp_path / "ensemble.npy"
    ensemble = AttributionEnsemble(InfluenceFunctions(), n_members=2, random_state=0).fit(net, X, y)
    ensemble.transform(X_query, out=path)
    with pytest.raises(FileExistsError, match="queries differs"):
        ensemble.transform(X_query + 1, out=path)
    with pytest.raises(FileExistsError, match="members differs"):
        AttributionEnsemble(InfluenceFunctions(), n_members=2, random_state=1).fit(net, X, y).transform(
            X_query, out=path
        )


class Gaps(BaseAttribution):
    """Scores for some columns alone, out of order, from one buffer that is filled again and again."""

    def fit(self, X, y=None, *, net=None, stage=None):
        self.n_train_ = 10
        return self

    def _query_batches(self, X, y):
        return len(X), QueryBatches([slice(0, len(X))], lambda rows: X[rows], lambda: str(X.sum()))

    def _score_batches(self, queries, n_queries):
        buffer = np.empty((n_queries, 2), np.float32)
        for start in (6, 0, 2):
            buffer[:] = queries[:, :1] + np.arange(start, start + 2)
            yield slice(start, start + 2), buffer

    def _self_batches(self):
        raise NotImplementedError


def test_rows_out_of_order_and_rows_without_scores(tmp_path):
    fitted, queries = Gaps().fit(None), np.arange(3.0)[:, None]
    expected = fitted.transform(queries)
    assert (expected[:, [4, 5, 8, 9]] == 0).all()
    assert expected[2, 7] == 9
    np.testing.assert_array_equal(fitted.transform(queries, out=np.full((3, 10), 7.0)), expected)
    for budget in (2**31, 256):  # whole rows, and a column at a time
        with config_context(memory_budget=budget):
            np.testing.assert_array_equal(fitted.transform(queries, out=tmp_path / f"{budget}.npy"), expected)
            store = Store((3, 10))
            fitted.transform(queries, out=store)
            np.testing.assert_array_equal(store.kept, expected)
    assert len(store.writes) > 3


def test_slabs_hold_no_more_than_they_may():
    writes = []
    slabs = ScoreSlabs(lambda columns, part: writes.append((columns, part.copy())), (4, 100), 16 * 30)
    for start in range(0, 100, 20):
        slabs.add(slice(start, start + 20), np.full((4, 20), start, np.float32))
    slabs.finish()
    assert [columns.stop - columns.start for columns, _ in writes] == [30, 30, 30, 10]
    np.testing.assert_array_equal(np.concatenate([p for _, p in writes], 1)[0], np.repeat(range(0, 100, 20), 20))
