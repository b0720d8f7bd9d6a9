"""Rows are found in everything that a skorch net takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from sklearn_source.inspection import InfluenceDisplay
from sklearn_source.inspection._showable import count, one_row, take

X = np.arange(12.0).reshape(4, 3)


class Pairs(torch.utils.data.Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return torch.as_tensor(X[i]), 0


CONTAINERS = {
    "array": X,
    "tensor": torch.as_tensor(X),
    "half": torch.as_tensor(X, dtype=torch.bfloat16),
    "sparse": sparse.csr_matrix(X),
    "dataset": Pairs(),
    "rows": X.tolist(),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_rows_of_one_input(name):
    container = CONTAINERS[name]
    assert count(container) == 4
    np.testing.assert_array_equal(take(container, [2, 0]), X[[2, 0]])
    row = one_row(container, 3)
    assert count(row) == 1
    np.testing.assert_array_equal(take(row, [0]), X[[3]])
    if name != "dataset":
        assert isinstance(row, type(container))


def test_rows_of_several_inputs():
    for container in ({"a": X, "b": -X}, (X, -X), [X, -X]):
        assert count(container) == 4
        found = take(container, [1])
        found = list(found.values()) if isinstance(found, dict) else found
        np.testing.assert_array_equal(np.stack(found), [X[[1]], -X[[1]]])
        assert type(one_row(container, 1)) is type(container)
        assert count(one_row(container, 1)) == 1


def test_rows_of_frames_and_texts():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=list("abc"), index=[7, 7, 8, 9])
    pd.testing.assert_frame_equal(take(frame, [1]), frame.iloc[[1]])
    assert list(take(pd.Series(["x", "y"], index=[5, 6]), [1])) == ["y"]
    assert take(["x", "y", "z"], [2, 0]) == ["z", "x"]
    assert one_row(["x", "y", "z"], 1) == ["y"]


@pytest.mark.parametrize("wrap", [torch.as_tensor, lambda X: pytest.importorskip("pandas").DataFrame(X)])
def test_from_estimator_with_other_containers(fitted, wrap):
    est, _, X, _ = fitted
    expected = InfluenceDisplay.from_estimator(est, X[:5], X_train=X, query=3, k=2)
    display = InfluenceDisplay.from_estimator(est, wrap(X[:5]), X_train=wrap(X), query=3, k=2)
    np.testing.assert_array_equal(display.supporting.indices, expected.supporting.indices)
    np.testing.assert_allclose(np.asarray(display.opposing.X, float), np.asarray(expected.opposing.X, float))
