"""Datasets of the user's own: fingerprints of what they yield, and rows that change at each reading."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest
import torch
from skorch import NeuralNetRegressor
from torch.utils.data import ConcatDataset, Dataset, Subset

from sklearn_source import GradientSimilarity, SourceAttribution, TracIn, Trajectory, TrajectoryRecorder
from sklearn_source.modules import MLP
from sklearn_source.rows import _yielded_rows as yielded
from sklearn_source.rows import row_hashes

N = 30


@pytest.fixture
def X():
    return np.random.RandomState(0).randn(N, 3).astype(np.float32)


@pytest.fixture
def y(X):
    return X.sum(1, keepdims=True)


class Own(Dataset):
    """Shows nothing of its rows; notes what is read."""

    def __init__(self, inputs, targets, change=None):
        self.inputs, self.targets, self.change, self.n_read = inputs, targets, change, 0

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, i):
        self.n_read += 1
        x = self.inputs[i]
        return (x if self.change is None else self.change(x, i)), self.targets[i]


def test_fingerprints_are_those_of_the_arrays(X, y):
    expected = row_hashes(X, y)
    own = Own(X, y)
    np.testing.assert_array_equal(row_hashes(own), expected)
    np.testing.assert_array_equal(row_hashes(own, y), expected)
    assert own.n_read == 0  # a copy was read
    np.testing.assert_array_equal(row_hashes(Subset(own, [4, 2])), expected[[4, 2]])
    np.testing.assert_array_equal(row_hashes(ConcatDataset([own, own])), np.tile(expected, 2))
    np.testing.assert_array_equal(row_hashes(Own(torch.from_numpy(X), y[:, 0].tolist())), expected)
    np.testing.assert_array_equal(
        row_hashes(Own([{"b": x[2:], "a": x[:2]} for x in X], y)), row_hashes({"a": X[:, :2], "b": X[:, 2:]}, y)
    )


def test_rows_of_other_kinds(X, y):
    texts = [f"row {i}" for i in range(N)]
    ragged = [torch.arange(1 + i % 5) + i for i in range(N)]
    for inputs in (texts, ragged, [None] * N):
        hashes = row_hashes(Own(inputs, y))
        assert len(np.unique(hashes)) == N
        np.testing.assert_array_equal(row_hashes(Own(inputs[::-1], y[::-1])), hashes[::-1])
    assert row_hashes(Own([object()] * N, y)) is None
    assert row_hashes(Own(X[:0], y[:0])) is None


def own_generator():
    generator = np.random.default_rng(0)
    return lambda x, i: x + generator.normal(size=3).astype(np.float32)


AUGMENTATIONS = {
    "torch": lambda x, i: x + 0.1 * torch.randn(3).numpy(),
    "numpy": lambda x, i: x * np.float32(np.random.rand()),
    "python": lambda x, i: x[::-1].copy() if random.random() < 0.5 else x,
    "own generator": own_generator(),
}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_rows_that_change_have_no_fingerprint_and_no_generator_moves(name, X, y):
    own = Own(X, y, AUGMENTATIONS[name])
    own.generator = torch.Generator().manual_seed(3)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), own.generator.get_state()
    assert row_hashes(own) is None
    assert row_hashes(own, sample=True) is None
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]
    assert torch.equal(own.generator.get_state(), states[3])


def test_an_own_generator_is_put_back(X, y):
    class Drawing(Own):
        def __init__(self, *args):
            super().__init__(*args)
            self.generators = [np.random.default_rng(0), torch.Generator().manual_seed(0), random.Random(0)]

        def __getitem__(self, i):
            numpy_, torch_, python = self.generators
            noise = numpy_.normal() + float(torch.randn((), generator=torch_)) + python.random()
            return self.inputs[i] + np.float32(noise), self.targets[i]

    own, twin = Drawing(X, y), Drawing(X, y)
    assert row_hashes(own) is None
    np.testing.assert_array_equal(own[3][0], twin[3][0])


def test_a_large_dataset_is_sampled(X, y, monkeypatch):
    monkeypatch.setattr(yielded, "_MAX_ROWS", 20)
    monkeypatch.setattr(yielded, "_N_SAMPLED", 7)
    monkeypatch.setattr(yielded.sampled_rows, "__defaults__", (7,))
    own = Own(X, y)
    assert row_hashes(own) is None
    sample = row_hashes(own, sample=True)
    known = np.flatnonzero(sample)
    assert len(known) == 7
    np.testing.assert_array_equal(sample[known], row_hashes(X, y)[known])
    np.testing.assert_array_equal(row_hashes(own, sample=True), sample)
    net = trained(own)
    TracIn().fit(net, own)
    for others in (Own(X + 1, y), Own(X[::-1], y[::-1])):
        with pytest.raises(ValueError, match="not the rows that the network was trained on.*of 7 looked at"):
            TracIn().fit(net, others)
    TracIn().fit(net, X, y)
    with pytest.raises(ValueError, match="7 are others"):
        TracIn().fit(net, X + 1, y)


def trained(dataset, **options):
    return NeuralNetRegressor(
        MLP, module__n_features=3, module__hidden=(4,), train_split=None, verbose=0, max_epochs=2, batch_size=10,
        callbacks=[TrajectoryRecorder()], **options,
    ).fit(dataset, None)  # fmt: skip


def test_other_rows_than_those_trained_on_are_refused(X, y):
    net = trained(Own(X, y))
    scores = SourceAttribution(n_segments=1).fit(net, Own(X, y)).transform(X[:2])
    order = np.random.RandomState(0).permutation(N)
    shuffled = SourceAttribution(n_segments=1).fit(net, Own(X[order], y[order])).transform(X[:2])
    np.testing.assert_allclose(shuffled, scores[:, order], atol=1e-5)  # rows are recognised in any order
    for others in (Own(X + 1, y), Own(X, y + 1), Own(np.roll(X, 1, 0), y)):
        with pytest.raises(ValueError, match="not the rows that the network was trained on"):
            SourceAttribution(n_segments=1).fit(net, others)
    arrays = SourceAttribution(n_segments=1).fit(net, X, y).transform(X[:2])
    np.testing.assert_allclose(arrays, scores, atol=1e-6)


def test_a_file_opened_at_the_first_reading_is_left_to_the_loader(X, y):
    class Lazy(Own):
        file = None

        def __getitem__(self, i):
            self.file = self.file or object()
            return self.inputs[i], self.targets[i]

    for dataset in (Lazy(X, y), Subset(Lazy(X, y), range(N))):
        assert row_hashes(dataset) is not None
        assert getattr(dataset, "dataset", dataset).file is None


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_rows_that_change_are_named_with_their_size(name, X, y):
    own = Own(X, y, AUGMENTATIONS[name])
    net = trained(own)
    assert Trajectory.from_net(net).stages[0].row_hashes is None
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    with pytest.warns(UserWarning, match=r"the training rows of Own change at each reading \(by .* of their size\)"):
        est = TracIn().fit(net, own)
    with pytest.warns(UserWarning, match="the queries of Own change at each reading"):
        est.transform(own)
    plain = TracIn().fit(net, Own(X, y))  # what the warning advises: the same rows without the random part
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second = plain.transform(X[:2]), TracIn().fit(net, Own(X, y)).transform(X[:2])
    np.testing.assert_array_equal(first, second)


def test_the_size_of_a_change(X, y):
    own = Own(X, y, lambda x, i: x + 0.1 * torch.randn(3).numpy())
    net = trained(own)
    with pytest.warns(UserWarning, match="change at each reading") as caught:
        TracIn().fit(net, own)
    (text,) = [str(w.message) for w in caught]
    expected = np.sqrt(2 * 0.1**2 * X.size / (X**2).sum())  # of two readings, each with its own noise
    assert float(text.split("(by ")[1].split()[0]) == pytest.approx(expected, rel=0.3)


def test_rows_drawn_from_their_index_and_random_collation(X, y):
    def seeded(x, i):
        return x + torch.randn(3, generator=torch.Generator().manual_seed(i)).numpy()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net = trained(Own(X, y, seeded))
        GradientSimilarity().fit(net, Own(X, y, seeded)).transform(Own(X, y, seeded))

    def collate(items):
        x, t = torch.utils.data.default_collate(items)
        return x * (torch.rand(len(x), 1) < 0.8), t

    net = trained(Own(X, y), iterator_train__collate_fn=collate)
    with pytest.warns(UserWarning, match="the training rows of Own change at each reading"):
        TracIn().fit(net, Own(X, y))
