"""Loaders and streams as rows: which are taken, what they are read as, and what is said of the others."""

from __future__ import annotations

import pickle
import random
import weakref

import numpy as np
import pytest
import torch
from skorch import NeuralNetRegressor
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    SequentialSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from sklearn_source.rows import (
    RowStream,
    count_rows,
    exact_row_hashes,
    known_rows,
    open_rows,
    prepare_rows,
    require_trainable,
    row_hashes,
    take_rows,
)
from sklearn_source.utils._random import seeded
from tests._streams import AsDicts, pair

N = 150
_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(N, 4)).astype(np.float32)
y = _RNG.normal(size=(N, 1)).astype(np.float32)
DATA = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
NET = NeuralNetRegressor(nn.Linear, module__in_features=4, module__out_features=1).initialize()


class Rows(IterableDataset):
    def __init__(self, X=X, y=y):
        self.X, self.y = X, y

    def __iter__(self):
        yield from zip(self.X, self.y)


class Batches:
    def __init__(self, size=37, X=X):
        self.size, self.X = size, X

    def __iter__(self):
        for start in range(0, N, self.size):
            yield self.X[start : start + self.size], y[start : start + self.size]


STREAMS = {
    "rows": Rows,
    "batches": Batches,
    "loader of rows": lambda: DataLoader(Rows(), batch_size=41),
    "loader of batches": lambda: DataLoader(list(Batches()), batch_size=None),
    "workers": lambda: DataLoader(Shared(), batch_size=8, num_workers=2),
}


class Shared(Rows):
    """Rows that two workers share out so that a loader's batches of 8 come in the rows' order."""

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        for i, row in enumerate(zip(self.X, self.y)):
            if info is None or i // 8 % info.num_workers == info.id:
                yield row


def states():
    return random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()


@pytest.mark.parametrize("make", STREAMS.values(), ids=STREAMS)
def test_rows_of_streams(make):
    before = states()
    stream = open_rows(NET, make())
    assert isinstance(stream, RowStream)
    assert len(stream) == N == count_rows(stream)
    assert stream.has_targets
    for index in ([0], [3, 70, 149], range(60, 90), range(100, N), [0, 101]):
        got = stream.rows(np.array(index))
        for part, expected in zip(got, (X, y)):
            np.testing.assert_array_equal(part, expected[np.array(index)])
    np.testing.assert_array_equal(row_hashes(stream), row_hashes(X, y))
    assert exact_row_hashes(stream) is None
    assert states() == before  # a loader draws seeds for its workers


def test_passes_are_few_and_the_first_rows_are_free():
    stream = open_rows(NET, Batches())
    for start in range(0, N, 10):
        stream.rows(np.arange(start, start + 10))
        stream.rows(np.arange(4))
    assert stream.n_passes == 2
    stream.rows(np.array([100]))
    assert stream.n_passes == 3
    copy = pickle.loads(pickle.dumps(stream))  # in the middle of a pass
    np.testing.assert_array_equal(copy.rows(np.array([120]))[0], X[[120]])


def test_numbers_beyond_float32_are_told_apart():
    wide = X.astype(np.float64) + 1e-12
    for stream in (Rows(wide), Batches(X=wide)):
        opened = open_rows(NET, stream)
        np.testing.assert_array_equal(exact_row_hashes(opened), exact_row_hashes(wide, y))
        np.testing.assert_array_equal(row_hashes(opened), row_hashes(X, y))
        stream.X = X.astype(np.float64)  # what float32 rounds to the same numbers
        with pytest.raises(ValueError, match="row 0 of the stream is another"):
            opened.rows(np.array([149]))


def test_kinds_of_batches():
    dicts = [{"a": torch.ones(3, 2), "b": torch.arange(3)}, {"a": torch.zeros(2, 2), "b": torch.arange(2)}]
    stream = open_rows(NET, DataLoader(dicts, batch_size=None))
    assert not stream.has_targets
    x, target = stream.rows(np.array([1, 2, 4]))
    assert target is None
    assert x["b"].tolist() == [1, 2, 1]
    assert x["a"].shape == (3, 2)
    pairs = [([X[:5], X[:5, :1]], y[:5]), ([X[5:8], X[5:8, :1]], y[5:8])]
    (first, second), _ = open_rows(NET, DataLoader(pairs, batch_size=None)).rows(np.arange(8))
    np.testing.assert_array_equal(first, X[:8])
    np.testing.assert_array_equal(second, X[:8, :1])


def test_rows_of_different_lengths_are_collated_by_the_net():
    class Ragged(IterableDataset):
        def __iter__(self):
            yield from ((torch.arange(1 + i % 3), i) for i in range(7))

    def pad(items):
        return nn.utils.rnn.pad_sequence([item[0] for item in items], batch_first=True), torch.tensor(
            [item[1] for item in items]
        )

    with pytest.raises(ValueError, match="iterator_train__collate_fn"):
        open_rows(NET, Ragged()).rows(np.arange(3))
    net = NeuralNetRegressor(nn.Linear, iterator_train__collate_fn=pad)
    x, target = open_rows(net, Ragged()).rows(np.array([1, 2, 4]))
    assert x.tolist() == [[0, 1, 0], [0, 1, 2], [0, 1, 0]]
    assert target.tolist() == [1, 2, 4]
    batches = [pad([item, (torch.zeros(n), 0)]) for n, item in enumerate(Ragged())]
    padded = open_rows(NET, DataLoader(batches, batch_size=None))
    assert row_hashes(padded) is None  # widths of their batches: nobody else can know them
    with pytest.raises(ValueError, match="cannot be joined"):
        padded.rows(np.arange(8))


def test_a_stream_may_fill_one_buffer_again():
    class Buffer:
        def __iter__(self):
            buffer = torch.empty(10, 4)
            for start in range(0, N, 10):
                yield buffer.copy_(torch.from_numpy(X[start : start + 10])), y[start : start + 10]

    np.testing.assert_array_equal(open_rows(NET, Buffer()).rows(np.arange(N))[0], X)


def test_read_only_arrays(recwarn):
    locked = X.copy()
    locked.flags.writeable = False
    got, _ = open_rows(NET, Batches(X=locked)).rows(np.arange(N))
    got += 1  # memory of its own
    assert np.array_equal(locked, X)
    assert not recwarn.list


@pytest.mark.parametrize("whole", [Rows, Batches], ids=["rows", "batches"])
def test_no_more_is_held_than_is_asked_for(whole):
    alive, most = weakref.WeakSet(), [0]

    class Watched(IterableDataset if whole is Rows else object):
        def __iter__(self):
            for start in range(0, 5000, 1 if whole is Rows else 50):
                x = torch.full((4,) if whole is Rows else (50, 4), float(start))
                alive.add(x)
                most[0] = max(most[0], len(alive))
                yield x, x[..., :1]
                del x

    stream = open_rows(NET, Watched())
    for start in range(0, 5000, 500):
        assert len(stream.rows(np.arange(start, start + 500))[0]) == 500
    assert stream.n_passes == 2
    assert most[0] < (64 + 2 * 1024 + 2 if whole is Rows else 4)


class Shuffled(Rows):
    def __iter__(self):
        order = torch.randperm(N).numpy()
        yield from zip(self.X[order], self.y[order])


class Reseeded(Rows):
    def __iter__(self):
        order = np.random.default_rng(3).permutation(N)
        yield from zip(self.X[order], self.y[order])


class Cut:
    """Another number of batches at every pass."""

    def __init__(self, *n_batches):
        self.left = list(n_batches)

    def __iter__(self):
        yield from list(Batches(10))[: self.left.pop(0)]


class Once(IterableDataset):
    def __init__(self):
        self.rows = zip(X, y)

    def __iter__(self):
        return self.rows


@pytest.mark.parametrize(
    ("stream", "match"),
    [
        (Shuffled(), "row 0 of the stream is another than in its first pass.*no shuffling"),
        (DataLoader(Shuffled(), batch_size=9), "row 0 of the stream is another"),
        (Cut(10, 8), "ended after 80 rows, where its first pass gave 100"),
        (Cut(10, 12), "more than the 100 rows"),
        (Once(), "ended after 0 rows.*read once only"),
    ],
)
def test_other_rows_in_a_later_pass(stream, match):
    with seeded(0):  # two orders of one in a hundred begin alike
        opened = open_rows(NET, stream)
        with pytest.raises(ValueError, match=match):
            opened.rows(np.arange(64, len(opened)))


def test_a_seed_in_iter_makes_an_order():
    opened = open_rows(NET, Reseeded())
    np.testing.assert_array_equal(opened.rows(np.arange(N))[0], X[np.random.default_rng(3).permutation(N)])


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        (zip(X, y), TypeError, "got a zip, which gives them once: wrap"),
        (((X, y) for _ in range(2)), TypeError, "got a generator"),
        (DataLoader(Rows(X[:0])), ValueError, "ends before its first"),
        (
            DataLoader(Rows(), batch_size=None),
            ValueError,
            r"expected batches .* got \(4,\), \(1,\): .* IterableDataset",
        ),
        (DataLoader([(X, y[:3])], batch_size=None), ValueError, "as many targets as rows"),
        (DataLoader([(X, X, y)], batch_size=None), ValueError, "pairs .* got 3 values"),
        (DataLoader(DATA, sampler=WeightedRandomSampler(np.ones(N), N)), ValueError, "WeightedRandomSampler"),
        (
            DataLoader(DATA, batch_sampler=[[0, 1], [2]]),
            ValueError,
            "every row of its dataset once, got one with a list.*loader.dataset",
        ),
        (DataLoader(DATA, batch_size=40, drop_last=True), ValueError, "last 30 rows out"),
        (DataLoader(DATA, sampler=torch.utils.data.RandomSampler(DATA, replacement=True)), ValueError, "repeats them"),
    ],
)
def test_refused(given, error, match):
    with pytest.raises(error, match=match):
        open_rows(NET, given)


def test_a_long_first_pass_says_so(monkeypatch):
    monkeypatch.setattr("sklearn_source.rows._row_stream._MANY", 100)
    with pytest.warns(UserWarning, match="has given 100 rows and is read on to its end") as said:
        open_rows(NET, Batches())
    assert len(said) == 1


def test_targets_beside_a_stream_are_refused():
    with pytest.raises(ValueError, match="expected y=None beside a Rows.*pairs"):
        open_rows(NET, Rows(), y)


def test_loader_over_a_dataset_is_the_dataset():
    def doubled(items):
        return [2 * part for part in default_collate(items)]

    for loader in (
        DataLoader(DATA, batch_size=7),
        DataLoader(DATA, batch_size=40, shuffle=True, drop_last=True),
        DataLoader(DATA, batch_sampler=BatchSampler(SequentialSampler(DATA), 4, False)),
    ):
        assert open_rows(NET, loader) is DATA
        assert count_rows(loader) == N
        np.testing.assert_array_equal(row_hashes(loader), row_hashes(X, y))
        assert isinstance(take_rows(loader, [1]), Subset)
    own = open_rows(NET, DataLoader(DATA, collate_fn=doubled))
    assert len(own) == N
    with pytest.raises(ValueError, match="a collate_fn of its own"):
        require_trainable(NET, own)
    with pytest.raises(TypeError, match="got a stream"):
        require_trainable(NET, open_rows(NET, Rows()))
    assert count_rows(DataLoader(Rows())) is None  # not its batches


def test_workers_that_do_not_share_their_rows():
    with pytest.warns(UserWarning, match="every row of the stream comes 2 times.*get_worker_info"):
        assert len(open_rows(NET, DataLoader(Rows(), batch_size=50, num_workers=2))) == 2 * N


def test_looking_at_a_stream_before_its_training_leaves_no_trace():
    class Own(Rows):
        def __init__(self):
            super().__init__()
            self.generator = torch.Generator().manual_seed(0)

        def __iter__(self):
            order = torch.randperm(N, generator=self.generator).numpy()
            yield from zip(self.X[order], self.y[order])

    dataset, before = Own(), states()
    state = dataset.generator.get_state()
    assert len(known_rows(NET, dataset)) == N
    assert known_rows(NET, X) is X
    assert torch.equal(dataset.generator.get_state(), state)
    assert states() == before


def test_what_makes_rows_is_no_rows():
    def rows():
        yield X, y

    for made in (rows, Batches, Batches().__iter__):
        with pytest.raises(TypeError, match="expected rows, got the .*: pass an object of a class"):
            open_rows(NET, made)


@pytest.mark.parametrize("make", [*STREAMS.values(), lambda: iter(Batches()), lambda: open_rows(NET, Rows())])
def test_no_network_is_trained_on_a_stream(make):
    with pytest.raises(TypeError, match="arrays or a map-style Dataset, got a stream: pass the rows so"):
        require_trainable(NET, make())
    for taken in (X, list(X), {"X": X}, (X, X), DATA, DataLoader(DATA), Subset(DATA, [0, 1])):
        assert require_trainable(NET, taken) is None


class Table:
    """Looks like a data set of Hugging Face's, of the map style: no torch Dataset, rows are dicts."""

    column_names = ("X", "y")

    def __init__(self, X=X, y=y):
        self.X, self.y = X, y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, index):
        return {"X": self.X[index], "y": self.y[index]}

    def __getitems__(self, index):
        return [self[i] for i in index]

    def select(self, index):
        return Table(self.X[index], self.y[index])


class Dicts(AsDicts, Rows):
    pass


def test_rows_that_are_dicts_are_known_by_what_they_are_collated_to():
    net = NeuralNetRegressor(nn.Linear, iterator_train__collate_fn=pair)
    for rows in (
        open_rows(net, Dicts()),
        open_rows(NET, DataLoader(Dicts(), batch_size=9, collate_fn=pair)),
        DataLoader(Table(), collate_fn=pair),
        DataLoader(list(Dicts()), collate_fn=pair, shuffle=True),
    ):
        np.testing.assert_array_equal(row_hashes(rows), row_hashes(X, y))
    np.testing.assert_array_equal(row_hashes(open_rows(NET, Dicts())), row_hashes({"X": X, "y": y}))
    np.testing.assert_array_equal(row_hashes(Table(), y), row_hashes({"X": X, "y": y}, y))
    assert row_hashes(Table(), y)[3] != row_hashes(Table(), y + 1)[3]
    assert count_rows(Table()) == N
    np.testing.assert_array_equal(take_rows(Table(), [3, 1]).y, y[[3, 1]])


def test_items_that_are_batches():
    class Batched(IterableDataset):
        def __iter__(self):
            yield from Batches()

    class Stage:
        def __init__(self, name):
            self.f = lambda: None
            self.f.__name__ = name

    def piped(stream, *stages):
        stream.pipeline = list(stages)
        return stream

    net = NeuralNetRegressor(nn.Linear, iterator_train__batch_size=None)  # its loader hands on what it is given
    assert len(open_rows(net, Batched())) == N
    loader = DataLoader(Rows(), batch_size=4)
    for stages in (
        (Stage("_map"), Stage("_batched")),
        (loader,),
        (DataLoader(Rows(), batch_size=None), Stage("_batched")),
    ):
        assert len(open_rows(NET, piped(Batched(), *stages))) == N
    for stages in ((loader, Stage("_unbatched"), Stage("_shuffle")), (Stage("_to_tuple"),)):
        assert len(open_rows(NET, piped(Rows(), *stages))) == N
    with pytest.raises(ValueError, match=r"where each is a batch of rows, .*batch_size=None"):
        open_rows(NET, Batched()).rows(np.arange(5))


def test_a_stream_that_draws_its_rows_again_says_so():
    class Resampled(IterableDataset):
        def __iter__(self):
            for _ in range(60):
                yield from zip(X, y)

    with pytest.warns(UserWarning, match="rows so far, of which 150 are different.*resampled"):
        open_rows(NET, Resampled())


def test_text_and_bytes_are_no_numbers():
    for value, said in ((b"\x93NUMPY", "undecoded bytes"), ("a text", "the text 'a text'")):
        stream = open_rows(NET, Values([({"id": value, "x": x}, target) for x, target in zip(X, y)]))
        rows = prepare_rows(NET, stream, device=torch.device("cpu"), dtype=torch.float32)
        with pytest.raises(ValueError, match=rf"expected numbers in X\['id'\]\[0\], got {said}: encode text"):
            rows.batch(slice(0, 2))


class Values(IterableDataset):
    def __init__(self, values):
        self.values = values

    def __iter__(self):
        return iter(self.values)
