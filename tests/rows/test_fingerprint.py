from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from scipy import sparse
from skorch.dataset import Dataset
from torch.utils.data import Subset, TensorDataset

from sklearn_source.rows import row_hashes


@pytest.fixture
def X():
    return np.random.RandomState(0).randn(50, 7).astype(np.float32)


@pytest.fixture
def y():
    return np.random.RandomState(1).randint(0, 3, 50)


def test_a_row_alone_has_the_hash_it_has_among_others(X, y):
    hashes = row_hashes(X, y)
    assert hashes.dtype == np.uint64
    assert len(set(hashes.tolist())) == 50
    for row in range(50):
        assert row_hashes(X[row : row + 1], y[row : row + 1])[0] == hashes[row]
    order = np.random.RandomState(2).permutation(50)
    np.testing.assert_array_equal(row_hashes(X[order], y[order]), hashes[order])


def test_containers_and_dtypes_agree(X, y):
    expected = row_hashes(X, y)
    column = y[:, None]
    inputs, targets = torch.from_numpy(X), torch.from_numpy(y)
    for same in [
        row_hashes(X.astype(np.float64), y.astype(np.int32)),
        row_hashes(np.asfortranarray(X), column),
        row_hashes(X.tolist(), y.tolist()),
        row_hashes(X.astype(object), y.astype(np.float32)),
        row_hashes(inputs, targets),
        row_hashes(inputs.double().requires_grad_(), targets.float()),
        row_hashes(sparse.csr_matrix(X), y),
        row_hashes(TensorDataset(inputs, targets)),
        row_hashes(TensorDataset(inputs, targets), y),
        row_hashes(TensorDataset(inputs), y),
        row_hashes(Dataset(X, y)),
        row_hashes(Dataset(X), y),
        row_hashes(Subset(Dataset(X, y), range(50))),
        row_hashes(X.reshape(50, 7, 1), y),
    ]:
        np.testing.assert_array_equal(same, expected)
    chosen = [4, 2, 40]
    np.testing.assert_array_equal(row_hashes(Subset(Subset(Dataset(X, y), range(2, 50)), [2, 0, 38])), expected[chosen])


def test_bfloat16_agrees_with_its_float32_copy(X):
    rounded = torch.from_numpy(X).bfloat16()
    np.testing.assert_array_equal(row_hashes(rounded), row_hashes(rounded.float()))


def test_frames_agree_with_arrays(X, y):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcdefg"))
    np.testing.assert_array_equal(row_hashes(frame, pandas.Series(y)), row_hashes(X, y))
    mixed = frame.assign(h=y, i=y > 0)
    np.testing.assert_array_equal(row_hashes(mixed), row_hashes(np.column_stack([X, y, y > 0])))
    assert row_hashes(frame.assign(h="text")) is None


def test_dicts_and_several_inputs(X, y):
    first, second = X[:, :3], X[:, 3:]
    both = row_hashes({"first": first, "second": second}, y)
    np.testing.assert_array_equal(row_hashes({"second": second, "first": first}, y), both)
    assert not np.intersect1d(row_hashes({"first": second, "second": first}, y), both).size
    parts = row_hashes([first, second], y)
    np.testing.assert_array_equal(row_hashes((torch.from_numpy(first), second), y), parts)
    np.testing.assert_array_equal(row_hashes(TensorDataset(*map(torch.from_numpy, (first, second, y)))), parts)
    assert not np.intersect1d(row_hashes([second, first], y), parts).size


def test_order_of_columns_and_targets_matter(X, y):
    hashes = row_hashes(X, y)
    for other in (
        row_hashes(X[:, ::-1], y),
        row_hashes(X[:, [0, 1, 2, 3, 5, 4, 6]], y),
        row_hashes(X, (y + 1) % 3),
        row_hashes(X),
        row_hashes(np.column_stack([X, np.zeros(50)]), y),
        row_hashes(np.column_stack([X, y])),
    ):
        assert not (other == hashes).any()


def test_every_bit_counts(X):
    hashes = row_hashes(X)
    for column in range(7):
        changed = X.copy()
        changed[:, column] = np.nextafter(changed[:, column], np.float32(np.inf))
        assert not (row_hashes(changed) == hashes).any()


def test_zeros_and_nans():
    plus, minus = np.zeros((2, 3), np.float32), -np.zeros((2, 3), np.float32)
    assert np.signbit(minus).all()
    np.testing.assert_array_equal(row_hashes(plus), row_hashes(minus))
    bits = np.array([[0x7FC00000, 0xFFC00001, 0x7F800001]], dtype=np.uint32)
    other = np.array([[0xFFC12345, 0x7FFFFFFF, 0x7FC00000]], dtype=np.uint32)
    assert np.isnan(bits.view(np.float32)).all()
    np.testing.assert_array_equal(row_hashes(bits.view(np.float32)), row_hashes(other.view(np.float32)))
    assert row_hashes(np.array([[np.inf]]))[0] != row_hashes(np.array([[np.nan]]))[0]
    assert row_hashes(np.array([[1e300]]))[0] == row_hashes(np.array([[np.inf]], dtype=np.float32))[0]


def test_few_valued_rows_do_not_collide():
    # All 2**16 binary rows: in float32 the values differ in their high bits only.
    bits = (np.arange(2**16)[:, None] >> np.arange(16)) & 1
    assert len(np.unique(row_hashes(bits))) == 2**16
    assert len(np.unique(row_hashes(bits.astype(np.float32) - 0.5))) == 2**16
    grid = np.stack(np.meshgrid(*[np.arange(40.0)] * 3), axis=-1).reshape(-1, 3)
    assert len(np.unique(row_hashes(grid))) == 40**3


def test_large_integers_are_told_apart():
    ids = 2**40 + np.arange(20_000, dtype=np.int64)[:, None]
    assert len(np.unique(row_hashes(ids))) == 20_000
    assert row_hashes(ids[7:8])[0] == row_hashes(ids)[7]
    small = np.array([[1, 2**24 + 1], [1, 2]])
    assert row_hashes(small)[1] == row_hashes(small[1:].astype(np.float32))[0]


def test_what_cannot_be_hashed(X):
    class Custom(torch.utils.data.Dataset):
        def __len__(self):
            return 3

    assert row_hashes(Custom()) is None
    assert row_hashes(Subset(Custom(), [0, 1])) is None
    assert row_hashes(["some", "text"]) is None
    assert row_hashes(X, np.array(["a"] * 50)) is None
    assert row_hashes({"a": X, "b": ["t"] * 50}) is None
    assert row_hashes(X.astype(complex)) is None
    assert row_hashes([[1, 2], [3]]) is None
    assert len(row_hashes(np.zeros((0, 4)))) == 0
    with pytest.raises(ValueError, match="as many targets"):
        row_hashes(X, np.zeros(49))


def test_fast():
    rows = np.random.default_rng(0).standard_normal((20_000, 784), dtype=np.float32)
    start = time.process_time()
    hashes = row_hashes(rows)
    assert time.process_time() - start < 1.0  # about 0.03 s on an idle core
    assert len(np.unique(hashes)) == 20_000


def test_a_list_of_vectors_holds_rows_but_for_skorch(X, y):
    np.testing.assert_array_equal(row_hashes(list(X), y), row_hashes(X, y))
    columns = [X[:, 0], X[:, 1]]
    np.testing.assert_array_equal(row_hashes(columns, y, as_skorch=True), row_hashes(tuple(columns), y))
    np.testing.assert_array_equal(row_hashes(Dataset(columns, y)), row_hashes(tuple(columns), y))
    assert len(row_hashes(columns)) == 2
