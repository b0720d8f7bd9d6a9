"""Rows are counted and taken in everything that a skorch net reads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from skorch.dataset import Dataset
from skorch.helper import SliceDataset, SliceDict
from torch.utils.data import IterableDataset, Subset, TensorDataset

from sklearn_source.rows import count_rows, has_multiple_inputs, row_hashes, take_rows

X = np.arange(12.0, dtype=np.float32).reshape(4, 3)


class Pairs(torch.utils.data.Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return torch.as_tensor(X[i]), 0


class Stream(IterableDataset):
    def __iter__(self):
        yield from ()


def frame():
    return pytest.importorskip("pandas").DataFrame(X, columns=list("abc"), index=[7, 7, 8, 9])


CONTAINERS = {
    "array": lambda: X,
    "read-only": lambda: np.broadcast_to(X[:, :1], (4, 3)),
    "images": lambda: X.reshape(4, 1, 3),
    "vector": lambda: X[:, 0],
    "tensor": lambda: torch.as_tensor(X),
    "half": lambda: torch.as_tensor(X, dtype=torch.bfloat16),
    "csr": lambda: sparse.csr_matrix(X),
    "coo": lambda: sparse.coo_array(X),
    "frame": frame,
    "series": lambda: frame()["b"],
    "tensor dataset": lambda: TensorDataset(torch.as_tensor(X), torch.arange(4)),
    "skorch dataset": lambda: Dataset(X, np.arange(4)),
    "subset": lambda: Subset(Dataset(X, np.arange(4)), [3, 1, 0, 0]),
    "slices of a dataset": lambda: SliceDataset(Dataset(X, np.arange(4))),
    "list of lists": X.tolist,
    "list of vectors": lambda: list(X),
    "list of numbers": lambda: [3.0, 1.0, 2.0, 0.0],
    "dict": lambda: {"a": X, "b": torch.as_tensor(-X)},
    "slice dict": lambda: SliceDict(a=X, b=-X[:, 0]),
    "dict of lists": lambda: {"a": X.tolist()},
    "tuple of inputs": lambda: (X, -X[:, 0]),
    "list of inputs": lambda: [X, sparse.csr_matrix(X)],
    "nothing": lambda: X[:0],
}
indices = st.lists(st.integers(0, 3), max_size=8)


def contents(rows):
    """A fingerprint of each row, in plain numbers."""
    if isinstance(rows, SliceDataset):
        rows = np.asarray([rows[i] for i in range(len(rows))])
    return row_hashes(rows).tolist() if count_rows(rows) else []


@pytest.mark.parametrize("name", [name for name in CONTAINERS if name != "nothing"])
@settings(max_examples=25, deadline=None)
@given(index=indices)
def test_rows_taken_are_those_rows_and_as_many(name, index):
    container = CONTAINERS[name]()
    assert count_rows(container) == 4
    rows = take_rows(container, index)
    assert count_rows(rows) == len(index)
    everything = contents(container)
    assert contents(rows) == [everything[i] for i in index]
    assert has_multiple_inputs(rows) == has_multiple_inputs(container)


@pytest.mark.parametrize("name", [name for name in CONTAINERS if "dict" not in name and "dataset" not in name])
def test_rows_stay_in_their_kind_of_container(name):
    container = CONTAINERS[name]()
    rows = take_rows(container, [0] if count_rows(container) else [])
    assert isinstance(rows, sparse.csr_array if name == "coo" else type(container))


@settings(max_examples=50, deadline=None)
@given(first=st.lists(st.integers(0, 3), min_size=1, max_size=8), data=st.data())
def test_taking_twice_is_taking_once(first, data):
    second = data.draw(st.lists(st.integers(0, len(first) - 1), max_size=8))
    for name in ("array", "csr", "list of lists", "dict", "subset"):
        container = CONTAINERS[name]()
        twice = take_rows(take_rows(container, first), second)
        assert contents(twice) == contents(take_rows(container, [first[i] for i in second]))


def test_rows_of_a_custom_dataset_and_of_texts():
    rows = take_rows(Pairs(), [2, 0])
    assert count_rows(rows) == 2
    np.testing.assert_array_equal(torch.stack([rows[i][0] for i in range(2)]), X[[2, 0]])
    assert count_rows(["x", "yy", "z"]) == 3
    assert take_rows(["x", "yy", "z"], [2, 0]) == ["z", "x"]
    assert count_rows({"texts": ["x", "yy", "z"]}) == 3


@pytest.mark.parametrize("uncountable", [None, Stream(), 3, iter([1, 2]), np.float64(1), {"a": Stream()}])
def test_what_has_no_number_of_rows(uncountable):
    assert count_rows(uncountable) is None


def test_skorch_takes_lists_as_inputs():
    columns = [X[:, 0], X[:, 1]]
    assert count_rows(columns) == 2
    assert count_rows(columns, as_skorch=True) == len(Dataset(columns)) == 4
    assert count_rows(X.tolist()) == 4
    assert count_rows(X.tolist(), as_skorch=True) == len(Dataset(X.tolist())) == 3
    for same in (X, torch.as_tensor(X), sparse.csr_matrix(X), frame(), {"a": X}, (X, X), Dataset(X)):
        assert count_rows(same, as_skorch=True) == count_rows(same) == 4


@pytest.mark.parametrize("as_skorch", [True, False])
@pytest.mark.parametrize("container", [lambda a, b: {"a": a, "b": b}, lambda a, b: (a, b), lambda a, b: [a, b]])
def test_inputs_of_different_lengths(container, as_skorch):
    with pytest.raises(ValueError, match="does not have consistent lengths"):
        count_rows(container(X, X[:2]), as_skorch=as_skorch)
