"""The bundled table: its numbers, sklearn's loader conventions, and the split of the benchmarks."""

from __future__ import annotations

import builtins

import numpy as np
import pytest

from sklearn_source.datasets import load_concrete, load_concrete_split


def test_first_and_last_published_rows():
    data = load_concrete()
    np.testing.assert_allclose(data.data[0], [540, 0, 0, 162, 2.5, 1040, 676, 28])
    np.testing.assert_allclose(data.data[-1], [260.9, 100.5, 78.3, 200.6, 8.6, 864.5, 761.5, 28])
    np.testing.assert_allclose(data.target[[0, -1]], [79.99, 32.4])


def test_bunch_follows_sklearn():
    data = load_concrete()
    assert data.data.shape == (1030, 8)
    assert data.target.shape == (1030,)
    assert data.data.dtype == data.target.dtype == np.float32
    assert data.data.flags["C_CONTIGUOUS"]
    assert data.feature_names[0] == "cement"
    assert data.feature_names[-1] == "age_days"
    assert len(data.feature_names) == 8
    assert data.target_names == ["compressive_strength_mpa"]
    assert data.frame is None
    assert "CC BY 4.0" in data.DESCR
    assert "Yeh" in data.DESCR


def test_documented_facts_are_those_of_the_table():
    data = load_concrete()
    rows = np.column_stack([data.data, data.target])
    assert len(rows) - len(np.unique(rows, axis=0)) == 25
    np.testing.assert_allclose([data.target.min(), data.target.max()], [2.33, 82.6], atol=0.005)
    assert (data.data[:, -1].min(), data.data[:, -1].max()) == (1, 365)


def test_return_X_y_is_the_same_data():
    X, y = load_concrete(return_X_y=True)
    data = load_concrete()
    np.testing.assert_array_equal(X, data.data)
    np.testing.assert_array_equal(y, data.target)


def test_calls_do_not_share_memory():
    first = load_concrete()
    first.data[:] = 0
    assert load_concrete().data.any()


def test_as_frame():
    pytest.importorskip("pandas")
    data = load_concrete(as_frame=True)
    plain = load_concrete()
    assert list(data.frame.columns) == plain.feature_names + plain.target_names
    np.testing.assert_array_equal(data.data.to_numpy(), plain.data)
    np.testing.assert_array_equal(data.target.to_numpy(), plain.target)
    X, y = load_concrete(return_X_y=True, as_frame=True)
    assert list(X.columns) == plain.feature_names
    assert y.name == plain.target_names[0]


def test_as_frame_without_pandas_says_what_to_do(monkeypatch):
    real_import = builtins.__import__

    def no_pandas(name, *args, **kwargs):
        if name == "pandas":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_pandas)
    with pytest.raises(ImportError, match="needs pandas"):
        load_concrete(as_frame=True)


def test_split_sizes_and_standardisation():
    split = load_concrete_split()
    assert split.X_train.shape == (896, 8)
    assert split.y_train.shape == (896, 1)
    assert split.X_query.shape == (103, 8)
    assert split.y_query.shape == (103, 1)
    assert split.X_train.dtype == split.y_query.dtype == np.float32
    np.testing.assert_allclose(split.X_train.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(split.X_train.std(axis=0), 1, atol=1e-5)
    np.testing.assert_allclose([split.y_train.mean(), split.y_train.std()], [0, 1], atol=1e-5)
    # Scalers that had seen the queries would centre all rows, not the training rows alone.
    assert np.abs(split.X_query.mean(axis=0)).max() > 1e-3


def test_split_rows_are_disjoint_and_map_back():
    split, data = load_concrete_split(), load_concrete()
    assert not set(split.indices_train) & set(split.indices_query)
    X = split.scaler_X.inverse_transform(split.X_query.astype(np.float64))
    y = split.scaler_y.inverse_transform(split.y_train.astype(np.float64))
    np.testing.assert_allclose(X, data.data[split.indices_query], atol=1e-3)
    np.testing.assert_allclose(y[:, 0], data.target[split.indices_train], atol=1e-3)


def test_split_is_reproducible_and_seeded():
    first, again, other = (
        load_concrete_split(),
        load_concrete_split(random_state=0),
        load_concrete_split(random_state=1),
    )
    np.testing.assert_array_equal(first.indices_train, again.indices_train)
    np.testing.assert_array_equal(first.X_query, again.X_query)
    assert not np.array_equal(first.indices_train, other.indices_train)
