from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse
from skorch import NeuralNetRegressor
from skorch.callbacks import Callback
from skorch.dataset import Dataset
from torch.utils.data import BatchSampler, Subset, SubsetRandomSampler, TensorDataset, WeightedRandomSampler

from sklearn_source.modules import MLP
from sklearn_source.rows import DrawCounter, RowLocator

N = 40


@pytest.fixture
def X():
    return np.random.RandomState(0).randn(N, 3).astype(np.float32)


@pytest.fixture
def y(X):
    return X.sum(1, keepdims=True)


class Own(torch.utils.data.Dataset):
    def __init__(self, X, y):
        self.inputs, self.targets = X, y

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, i):
        return {"a": self.inputs[i, :2], "b": self.inputs[i, 2:]}, self.targets[i]


DATASETS = {
    "skorch": Dataset,
    "no targets": lambda X, y: Dataset(X),
    "float64": lambda X, y: Dataset(X.astype(float), y),
    "sparse": lambda X, y: Dataset(sparse.csr_matrix(X), y),
    "dict": lambda X, y: Dataset({"a": X[:, :2], "b": X[:, 2:]}, y),
    "list": lambda X, y: Dataset([X[:, :2], X[:, 2]], y),
    "frame": lambda X, y: Dataset(pytest.importorskip("pandas").DataFrame(X, columns=list("abc")), y),
    "tensors": lambda X, y: TensorDataset(torch.from_numpy(X), torch.from_numpy(y)),
    "own": Own,
    "subset": lambda X, y: Subset(Dataset(np.repeat(X, 2, 0), np.repeat(y, 2, 0)), range(0, 2 * N, 2)),
    "of own": lambda X, y: Subset(Own(np.repeat(X, 2, 0), np.repeat(y, 2, 0)), range(0, 2 * N, 2)),
}


@pytest.mark.parametrize("name", DATASETS)
def test_rows_of_any_batch_are_recognised(name, X, y):
    dataset = DATASETS[name](X, y)
    locator, order = RowLocator(dataset), np.random.RandomState(1).permutation(N)
    for index in (order[:7], order[7:8], order):
        Xi, yi = torch.utils.data.default_collate([dataset[int(i)] for i in index])
        np.testing.assert_array_equal(locator.indices(Xi, yi), index)


def test_unknown_rows_and_equal_ones(X, y):
    X[7], y[7] = X[3], y[3]
    X[9] = X[3]  # with another target
    locator = RowLocator(Dataset(X, y))
    foreign = torch.from_numpy(X[:1] + 1e-6)
    Xi, yi = torch.cat([torch.from_numpy(X[[7, 3, 9]]), foreign]), torch.from_numpy(y[[7, 3, 9, 0]])
    np.testing.assert_array_equal(locator.indices(Xi, yi), [3, 3, 9, -1])
    draws = np.bincount([3, 3, 9, 3], minlength=N)
    shared = locator.shared(draws)
    assert (shared[3], shared[7], shared[9], shared.sum()) == (1.5, 1.5, 1.0, 4.0)


def test_rows_that_cannot_be_known(X, y):
    class Augmented(Own):
        def __getitem__(self, i):
            return self.inputs[i] + torch.randn(3).numpy(), self.targets[i]

    locator = RowLocator(Augmented(X, y))
    assert locator.known is None
    np.testing.assert_array_equal(locator.indices(torch.from_numpy(X[:4]), torch.from_numpy(y[:4])), [-1] * 4)


class Counter(Callback):
    """Counts by contents; the sampler's own indices are the truth."""

    def on_epoch_begin(self, net, dataset_train=None, **kwargs):
        self.draws = getattr(self, "draws", None) or DrawCounter(dataset_train)

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        if training:
            self.draws.add(*batch)


SAMPLERS = {
    "subset": {"sampler": SubsetRandomSampler(range(0, N, 3))},
    "weighted": {"sampler": WeightedRandomSampler(np.arange(N) + 0.01, 60)},
    "batches": {"batch_sampler": BatchSampler(WeightedRandomSampler(np.ones(N), 30), 4, drop_last=True)},
    "dropped": {"drop_last": True},
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_draws_of_a_training(name, X, y):
    drawn = []

    class Telling(Dataset):
        def __getitem__(self, i):
            drawn.append(i)
            return super().__getitem__(i)

    counter, options = Counter(), SAMPLERS[name]
    options = {"batch_size": 1, "shuffle": False, **options} if name == "batches" else options
    net = NeuralNetRegressor(
        MLP, module__n_features=3, train_split=None, verbose=0, max_epochs=3, batch_size=16, callbacks=[counter],
        **{f"iterator_train__{key}": value for key, value in options.items()},
    )  # fmt: skip
    net.initialize().partial_fit(Telling(X, y), None)
    counter = next(c for _, c in net.callbacks_ if isinstance(c, Counter))
    size = 4 if name == "batches" else 16
    draws = counter.draws.draws()
    assert counter.draws.unknown == 0
    shares, draws = draws
    assert shares.sum() == pytest.approx({"subset": 3, "weighted": 12, "batches": 21, "dropped": 6}[name])  # batches
    if name in ("batches", "dropped"):  # of one size
        np.testing.assert_allclose(shares, draws / size)
    n_draws = int(draws.sum())
    np.testing.assert_array_equal(draws, np.bincount(drawn[-n_draws:], minlength=N))
    assert n_draws == {"subset": 42, "weighted": 180, "batches": 84, "dropped": 96}[name]
