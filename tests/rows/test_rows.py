from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.utils import check_random_state
from skorch import NeuralNet, NeuralNetClassifier, NeuralNetRegressor
from skorch.dataset import Dataset
from skorch.helper import SliceDataset, SliceDict
from torch import nn
from torch.utils.data import ConcatDataset, IterableDataset, Subset, TensorDataset

from sklearn_source.network import Network
from sklearn_source.rows import ArrayRows, Rows
from sklearn_source.rows._dataset_rows import DatasetRows

N = 11


class Doubling(Dataset):
    def transform(self, X, y):
        X, y = super().transform(X, y)
        return 2 * X, y


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return N

    def __getitem__(self, i):
        return {"pixels": np.full((2, 2), i, dtype=np.float64), "n": i}, i % 3


class Stream(IterableDataset):
    def __iter__(self):
        yield from ((torch.ones(2), 0) for _ in range(3))


@pytest.fixture
def X(rng):
    return rng.normal(size=(N, 4))


@pytest.fixture
def y(rng):
    return rng.normal(size=(N, 1))


def network_of(cls=NeuralNetRegressor, criterion=nn.MSELoss, dtype=torch.float32, **kwargs):
    return Network.from_net(cls(nn.Linear(4, 1).to(dtype), criterion=criterion, **kwargs).initialize())


def loader(net, X, y, index):
    """What skorch's own loader gives for the same rows."""
    dataset = net.get_dataset(X, y)
    return next(iter(net.get_iterator(Subset(dataset, index), training=False)))


def compare(got, expected, dtype):
    if isinstance(expected, dict):
        assert got.keys() == expected.keys()
        return [compare(got[k], expected[k], dtype) for k in expected]
    if isinstance(expected, (list, tuple)):
        assert isinstance(got, list)
        return [compare(g, e, dtype) for g, e in zip(got, expected, strict=True)]
    assert got.dtype == (dtype if expected.is_floating_point() else expected.dtype)
    torch.testing.assert_close(got, expected.to(got.dtype), rtol=0, atol=0)


def frame(X):
    pd = pytest.importorskip("pandas")
    return pd.DataFrame(X, columns=list("abcd"), index=np.arange(N) + 100)


SOURCES = {
    "array": lambda X: X,
    "float32": lambda X: X.astype(np.float32),
    "integers": lambda X: (10 * X).astype(np.int64),
    "four dimensions": lambda X: X.reshape(N, 1, 2, 2),
    "one dimension": lambda X: X[:, 0],
    "reversed": lambda X: X[::-1],
    "columns first": np.asfortranarray,
    "tensor": torch.from_numpy,
    "dict": lambda X: {"a": X, "b": torch.from_numpy(X[:, 0])},
    "slice dict": lambda X: SliceDict(a=X, b=X[:, 0]),
    "list": lambda X: [X, X[:, :2]],
    "tuple": lambda X: (X, torch.from_numpy(X)),
    "frame": frame,
    "sparse": lambda X: sparse.csr_matrix(np.where(X > 0, X, 0)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")  # skorch's own loader, on frames
def test_batches_are_those_of_skorchs_loader(source, dtype, X, y):
    net = NeuralNetRegressor(nn.Linear(4, 1).to(dtype)).initialize()
    data = SOURCES[source](X)
    rows = Network.from_net(net).prepare(data, y)
    assert isinstance(rows, Rows)
    assert isinstance(rows, ArrayRows)
    assert len(rows) == N
    wide = source in ("array", "float32", "integers", "reversed", "columns first", "tensor", "sparse")
    assert rows.n_features == (4 if wide else None)
    for index, spelled in (
        ([3, 0, 7], np.array([3, 0, 7])),
        ([3, 0, 7], torch.tensor([3, 0, 7])),
        ([N - 1, 2], [-1, 2]),
        ([2, 3, 4], slice(2, 5)),
        ([0, 10], np.arange(N) % 10 == 0),
    ):
        expected_x, expected_y = loader(net, data, y, index)
        x, t = rows.batch(spelled)
        compare(x, expected_x, dtype)
        compare(t, expected_y, dtype)
        compare(rows.targets(spelled), expected_y, dtype)


def test_pandas_targets(X):
    pd = pytest.importorskip("pandas")
    series = pd.Series(np.arange(N) % 3, index=np.arange(N)[::-1])
    network = network_of(NeuralNetClassifier, nn.CrossEntropyLoss)
    assert network.prepare(X, series).batch([4, 2])[1].tolist() == [1, 2]


def test_several_targets(X, y):
    rows = network_of(NeuralNet, nn.MSELoss).prepare(X, {"a": y, "b": np.arange(N)})
    _, t = rows.batch([1, 5])
    assert t["a"].dtype == torch.float32
    assert t["b"].dtype == torch.float32  # numbers under a squared error, whatever they came as
    assert t["b"].tolist() == [1, 5]


@pytest.mark.parametrize(
    ("cls", "criterion", "given", "expected"),
    [
        (NeuralNetClassifier, nn.CrossEntropyLoss, np.int32, torch.int64),
        (NeuralNetClassifier, nn.CrossEntropyLoss, bool, torch.int64),
        (NeuralNetClassifier, nn.NLLLoss, np.uint8, torch.int64),
        (NeuralNet, nn.BCEWithLogitsLoss, np.int64, torch.float32),
        (NeuralNetRegressor, nn.MSELoss, np.int64, torch.float32),
        (NeuralNetRegressor, nn.MSELoss, np.float64, torch.float32),
        (NeuralNet, nn.HuberLoss, np.int64, torch.int64),
    ],
)
def test_dtype_of_targets(cls, criterion, given, expected, X):
    y = (np.arange(N) % 2).astype(given)
    for data, t in ((X, y), (TensorDataset(torch.from_numpy(X), torch.from_numpy(y)), None), (Doubling(X, y), None)):
        assert network_of(cls, criterion).prepare(data, t).batch([0, 1])[1].dtype == expected


@pytest.mark.parametrize("y", [[0, 1] * 5 + [0], (0, 1) * 5 + (0,), tuple(np.arange(N) % 2)])
def test_lists_of_labels(X, y):
    assert network_of(NeuralNetClassifier, nn.CrossEntropyLoss).prepare(X, y).batch([1, 2])[1].tolist() == [1, 0]


def test_batches_share_no_memory_with_the_users_data(X, y):
    for data in (X.astype(np.float32), torch.from_numpy(X).float()):
        before = np.asarray(data).copy()
        rows = network_of().prepare(data, y.astype(np.float32))
        for index in (slice(None), np.arange(N)):
            x, t = rows.batch(index)
            x.zero_(), t.zero_()
        np.testing.assert_array_equal(np.asarray(data), before)
        assert rows.batch([1])[1].any()


@pytest.mark.filterwarnings("error")
def test_read_only_arrays(X, y):
    X.setflags(write=False)
    y.setflags(write=False)
    x, _ = network_of().prepare(X, y).batch(slice(0, 2))
    np.testing.assert_allclose(x.numpy(), X[:2].astype(np.float32))


@pytest.mark.parametrize("source", ["tensor dataset", "skorch dataset", "subset", "slices"])
def test_datasets(source, X, y):
    tensors = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    given = {
        "tensor dataset": (tensors, None),
        "skorch dataset": (Dataset(X, y), None),
        "subset": (Subset(tensors, range(N)), None),
        "slices": (SliceDataset(tensors, 0), SliceDataset(tensors, 1)),
    }[source]
    rows = network_of().prepare(*given)
    assert isinstance(rows, DatasetRows if source in ("subset", "slices") else ArrayRows)
    assert rows.n_features == 4
    assert rows.has_y
    for index in ([4, 1], slice(1, 8, 3)):
        x, t = rows.batch(index)
        picked = np.arange(N)[index]
        np.testing.assert_allclose(x.numpy(), X[picked].astype(np.float32))
        np.testing.assert_allclose(t.numpy(), y[picked].astype(np.float32))
        assert torch.equal(rows.targets(index), t)


def test_a_datasets_transform_is_honoured(X, y):
    by_class = network_of(dataset=Doubling)
    for rows in (by_class.prepare(X, y), network_of().prepare(Doubling(X, y))):
        np.testing.assert_allclose(rows.batch([2])[0].numpy(), 2 * X[[2]].astype(np.float32))
    assert not by_class.prepare(X).has_y
    assert by_class.prepare(X).batch([0, 1])[1] is None


def test_targets_beside_a_dataset(X, y):
    inside = network_of().prepare(Dataset(X, y), np.zeros((N, 1))).batch([3])[1]
    np.testing.assert_allclose(inside.numpy(), y[[3]].astype(np.float32))
    with pytest.raises(ValueError, match="put y into the dataset"):
        network_of().prepare(Dataset(X), y)


def test_items_are_collated_like_the_loader_does():
    rows = network_of(NeuralNetClassifier, nn.CrossEntropyLoss).prepare(Images())
    x, y = rows.batch([4, 2])
    assert x["pixels"].dtype == torch.float32
    assert x["pixels"][:, 0, 0].tolist() == [4, 2]
    assert x["n"].tolist() == [4, 2]
    assert y.tolist() == [1, 2]
    assert rows.n_features is None


@pytest.mark.parametrize(
    ("which", "read"), [("iterator_train", Network.prepare), ("iterator_valid", Network.prepare_queries)]
)
def test_the_nets_collate_fn(which, read, X, y):
    """Rows are read as in training, queries as by ``predict``."""

    def pad(items):
        return torch.stack([torch.cat([torch.as_tensor(x), torch.zeros(2)]) for x, _ in items]), [t for _, t in items]

    network = network_of(**{f"{which}__collate_fn": pad})
    x, t = read(network, X, y).batch([1, 2])
    assert x.shape == (2, 6)
    (other,) = {Network.prepare, Network.prepare_queries} - {read}
    assert other(network, X, y).batch([1, 2])[0].shape == (2, 4)
    assert [float(v) for v in t] == [np.float32(y[1, 0]), np.float32(y[2, 0])]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("which", ["X", "y"])
def test_non_finite_numbers(which, bad, X, y):
    data = {"X": X, "y": y}
    data[which] = data[which].copy()
    data[which][7, 0] = bad
    match = f"Input {which} contains {'NaN' if np.isnan(bad) else 'infinity'}"
    for convert in (lambda a: a, torch.from_numpy):
        with pytest.raises(ValueError, match=match):
            network_of().prepare(convert(data["X"]), convert(data["y"]))
    if bad == 1e300:
        network_of(dtype=torch.float64).prepare(**data)
    rows = network_of().prepare(Doubling(data["X"], data["y"]))
    rows.batch([0, 1])
    with pytest.raises(ValueError, match=match):
        rows.batch([6, 7])


def test_non_finite_numbers_are_named_in_dicts_frames_and_lists(X, y):
    bad = X.copy()
    bad[3, 2] = np.nan
    for data, name in (({"a": X, "b": bad}, r"X\['b'\]"), ([X, bad], r"X\[1\]"), (sparse.csr_matrix(bad), "X")):
        with pytest.raises(ValueError, match=rf"Input {name} contains NaN \(row 3\)"):
            network_of().prepare(data, y)
    with pytest.raises(ValueError, match=r"Input X\['c'\] contains NaN"):
        network_of().prepare(frame(bad), y)


@pytest.mark.parametrize(
    ("X", "y", "match"),
    [
        (np.ones((4, 4)), np.ones((3, 1)), "X with 4 rows and y with 3"),
        ({"a": np.ones(4), "b": np.ones(3)}, None, "same number of rows in X"),
        (np.ones((0, 4)), None, "0 rows"),
        (None, None, "got None"),
        (np.array([["a", "b"]]), None, "expected numbers in X"),
        (np.ones((2, 4)), np.array(["cat", "dog"]), "expected numbers in y, got dtype <U3: encode labels"),
        (np.ones((2, 4)), ["cat", "dog"], "encode labels"),
        (np.ones((2, 4)), np.array([0, None]), "expected numbers in y, got dtype object"),
        (torch.eye(4).to_sparse(), None, "dense tensor"),
    ],
)
def test_bad_input(X, y, match):
    with pytest.raises(ValueError, match=match):
        network_of(NeuralNetClassifier, nn.CrossEntropyLoss).prepare(X, y)


def test_streams_are_refused():
    with pytest.raises(TypeError, match="rows of a stream"):
        network_of().prepare(Stream())


def test_datasets_that_give_no_pairs(X):
    tensor = torch.from_numpy(X)
    with pytest.raises(ValueError, match="pairs .* got 3 values"):
        network_of().prepare(TensorDataset(tensor, tensor, tensor))
    for data in (TensorDataset(tensor), Subset(TensorDataset(tensor), range(N)), ConcatDataset([list(tensor)])):
        rows = network_of().prepare(data)  # inputs alone: queries without targets
        assert not rows.has_y
        x, y = rows.batch([1, 3])
        torch.testing.assert_close(x, tensor[[1, 3]].float())
        assert y is None


@pytest.mark.parametrize("index", [[N], [-N - 1], np.ones(N + 1, dtype=bool)])
def test_rows_that_do_not_exist(X, index):
    with pytest.raises(IndexError):
        network_of().prepare(X).batch(index)


def test_no_random_numbers_are_used(X, y):
    network = network_of()
    state, other = torch.random.get_rng_state(), check_random_state(None).get_state()[1].copy()
    for data in ((X, y), (Doubling(X, y), None)):
        network.prepare(*data).batch(slice(None))
    assert torch.equal(state, torch.random.get_rng_state())
    assert np.array_equal(other, check_random_state(None).get_state()[1])
