"""Rows of everything that a skorch net takes can be shown."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from sklearn_source.inspection import InfluenceDisplay
from sklearn_source.inspection._showable import take_showable

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
def test_rows_of_one_input_become_an_array(name):
    rows = take_showable(CONTAINERS[name], [2, 0])
    assert type(rows) is np.ndarray
    np.testing.assert_array_equal(rows, X[[2, 0]])


def test_rows_of_several_inputs():
    for container in ({"a": X, "b": torch.as_tensor(-X)}, (X, torch.as_tensor(-X)), [X, torch.as_tensor(-X)]):
        rows = take_showable(container, [1])
        rows = list(rows.values()) if isinstance(rows, dict) else rows
        assert all(type(part) is np.ndarray for part in rows)
        np.testing.assert_array_equal(np.stack(rows), [X[[1]], -X[[1]]])


def test_rows_of_frames_and_texts():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=list("abc"), index=[7, 7, 8, 9])
    pd.testing.assert_frame_equal(take_showable(frame, [1]), frame.iloc[[1]])
    assert list(take_showable(pd.Series(["x", "y"], index=[5, 6]), [1])) == ["y"]
    assert take_showable(["x", "y", "z"], [2, 0]) == ["z", "x"]


@pytest.mark.parametrize("wrap", [torch.as_tensor, lambda X: pytest.importorskip("pandas").DataFrame(X)])
def test_from_estimator_with_other_containers(fitted, wrap):
    est, _, X, _ = fitted
    expected = InfluenceDisplay.from_estimator(est, X[:5], X_train=X, query=3, k=2)
    display = InfluenceDisplay.from_estimator(est, wrap(X[:5]), X_train=wrap(X), query=3, k=2)
    np.testing.assert_array_equal(display.supporting.indices, expected.supporting.indices)
    np.testing.assert_allclose(np.asarray(display.opposing.X, float), np.asarray(expected.opposing.X, float))
