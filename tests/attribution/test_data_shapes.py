"""Every container of rows that skorch takes, for training rows and queries: the same scores from each."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.dataset import Dataset
from skorch.helper import SliceDataset, SliceDict
from torch import nn
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from sklearn_source import InfluenceFunctions, SourceAttribution
from tests._methods import METHODS
from tests._nets import make_net

RNG = np.random.RandomState(0)
N, M = 20, 5
A, B = RNG.normal(size=(N, 3)).astype(np.float32), RNG.normal(size=(N, 2)).astype(np.float32)
Y = (A[:, :1] - B[:, 1:] + 0.1 * RNG.normal(size=(N, 1))).astype(np.float32)
QA, QB = RNG.normal(size=(M, 3)).astype(np.float32), RNG.normal(size=(M, 2)).astype(np.float32)
QY = RNG.normal(size=(M, 1)).astype(np.float32)


class Two(nn.Module):
    """Two inputs by name or by place."""

    def __init__(self, n_out=1):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(3, 4), nn.Linear(2, 4), nn.Linear(4, n_out)

    def forward(self, a, b=None):
        if b is None:  # one table, or one list of both
            a, b = a if isinstance(a, (list, tuple)) else (a[:, :3], a[:, 3:])
        return self.last(torch.tanh(self.first(a) + self.second(b)))


class Items(torch.utils.data.Dataset):
    """A user's own: dicts made item by item, and targets where there are any."""

    def __init__(self, a, b, y=None):
        self.a, self.b, self.targets = a, b, y

    def __len__(self):
        return len(self.a)

    def __getitem__(self, i):
        x = {"a": self.a[i], "b": self.b[i]}
        return x if self.targets is None else (x, self.targets[i])


def table(a, b, y=None):
    return TensorDataset(*(torch.from_numpy(v) for v in (np.hstack([a, b]), y) if v is not None))


# name: what becomes of the inputs and the targets
CONTAINERS = {
    "table": lambda a, b, y: (np.hstack([a, b]), y),
    "tensor": lambda a, b, y: (torch.from_numpy(np.hstack([a, b])), None if y is None else torch.from_numpy(y)),
    "dict": lambda a, b, y: ({"a": a, "b": b}, y),
    "dict of tensors": lambda a, b, y: ({"b": torch.from_numpy(b), "a": torch.from_numpy(a)}, y),
    "slice dict": lambda a, b, y: (SliceDict(a=a, b=b), y),
    "list": lambda a, b, y: ([a, b], y),
    "tuple": lambda a, b, y: ((a, torch.from_numpy(b)), y),
    "skorch dataset": lambda a, b, y: (Dataset({"a": a, "b": b}, y), None),
    "tensor dataset": lambda a, b, y: (table(a, b, y), None),
    "own dataset": lambda a, b, y: (Items(a, b, y), None),
    "subset": lambda a, b, y: (Subset(Items(a, b, y), range(len(a))), None),
    "concatenated": lambda a, b, y: (
        ConcatDataset([Subset(Items(a, b, y), range(2)), Subset(Items(a, b, y), range(2, len(a)))]), None
    ),
}  # fmt: skip


def trained(net, X, y=None):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return net.fit(X, y)


@pytest.fixture(scope="module")
def expected():
    """Scores of every method, all data in one table."""
    X = np.hstack([A, B])
    net = trained(make_net(module=Two), X, Y)
    est = {method: method().fit(net, X, Y) for method in METHODS}
    Q = np.hstack([QA, QB])
    return {method: (e.transform(Q), e.self_influence()) for method, e in est.items()}


@pytest.mark.parametrize("container", CONTAINERS)
def test_scores_do_not_depend_on_the_container(container, expected):
    make = CONTAINERS[container]
    X, y = make(A, B, Y)
    net = trained(make_net(module=Two), X, y)
    for method in METHODS:
        est = method().fit(net, X, y)
        scores, own = expected[method]
        tolerance = 2e-5 * np.abs(scores).max()
        for targets in (QY, None):
            Q, qy = make(QA, QB, targets)
            np.testing.assert_allclose(est.transform(Q, qy), scores, rtol=1e-4, atol=tolerance)
            assert est.top_influences(Q, qy, k=3).indices.shape == (M, 3)
        np.testing.assert_allclose(est.self_influence(), own, rtol=1e-3, atol=1e-4 * np.abs(own).max())


@pytest.mark.parametrize("container", ["own dataset", "tensor dataset", "skorch dataset"])
def test_targets_beside_a_dataset_that_has_its_own(container):
    """skorch's fit takes y beside a dataset for its train_split alone; attribution reads the dataset's too."""
    X, _ = CONTAINERS[container](A, B, Y)
    net = trained(make_net(module=Two), X, Y)
    est = InfluenceFunctions(measurement="neg_loss").fit(net, X, Y)
    Q, _ = CONTAINERS[container](QA, QB, QY)
    scores = est.transform(Q, QY)
    np.testing.assert_array_equal(est.transform(Q), scores)  # a measurement that needs targets finds them
    without, _ = CONTAINERS[container](QA, QB, None)
    with pytest.raises(ValueError, match="compares the prediction with a target: pass y of the queries"):
        est.transform(without)


def test_a_dataset_without_targets_is_no_training_set(expected):
    net = trained(make_net(module=Two), Items(A, B, Y))
    with pytest.raises(ValueError, match="requires y, the targets given to net.fit"):
        InfluenceFunctions().fit(net, Items(A, B))


def test_a_collate_function(expected):
    """Rows that only the net's own collate function can put together."""

    class Strange(torch.utils.data.Dataset):
        def __init__(self, a, b, y):
            self.rows = [{"numbers": (*p, *q), "answer": r} for p, q, r in zip(a.tolist(), b.tolist(), y.tolist())]

        def __len__(self):
            return len(self.rows)

        def __getitem__(self, i):
            return self.rows[i]

    def collate(items):
        x = torch.tensor([item["numbers"] for item in items])
        return {"a": x[:, :3], "b": x[:, 3:]}, torch.tensor([item["answer"] for item in items])

    options = {"iterator_train__collate_fn": collate, "iterator_valid__collate_fn": collate}
    data = Strange(A, B, Y)
    net = trained(make_net(module=Two, **options), data)
    est = SourceAttribution().fit(net, data)
    scores, _ = expected[SourceAttribution]
    found = est.transform(Strange(QA, QB, QY))
    np.testing.assert_allclose(found, scores, rtol=1e-4, atol=2e-5 * np.abs(scores).max())


def test_unfrozen_nets_take_datasets_and_dicts():
    for X, y in (({"a": A, "b": B}, Y), (Items(A, B, Y), None), (table(A, B, Y), None)):
        est = InfluenceFunctions(make_net(module=Two, recorded=False), random_state=0).fit(X, y)
        assert est.transform({"a": QA, "b": QB} if not isinstance(X, TensorDataset) else table(QA, QB)).shape == (M, N)


# --- targets ------------------------------------------------------------------------------------------------------


def test_queries_in_either_shape_of_targets():
    X, Q = np.hstack([A, B]), np.hstack([QA, QB])
    est = InfluenceFunctions(measurement="neg_loss").fit(trained(make_net(module=Two), X, Y), X, Y)
    scores = est.transform(Q, QY)
    np.testing.assert_array_equal(est.transform(Q, QY[:, 0]), scores)
    np.testing.assert_array_equal(est.transform(Q, torch.from_numpy(QY[:, 0])), scores)


def test_binary_targets_are_flat():
    labels = (Y[:, 0] > 0).astype(np.float32)
    net = trained(make_net(NeuralNetBinaryClassifier, module=Two), {"a": A, "b": B}, labels)
    est = SourceAttribution().fit(net, {"a": A, "b": B}, labels)
    scores = est.transform({"a": QA, "b": QB}, labels[:M])
    np.testing.assert_array_equal(est.transform({"a": QA, "b": QB}, labels[:M].astype(int)[:, None]), scores)


@pytest.mark.parametrize("kind", ["several outputs", "multi-label"])
def test_several_targets(kind):
    y = np.hstack([Y, 2 * Y]) if kind == "several outputs" else np.hstack([Y > 0, Y < 0.5]).astype(np.float32)
    criterion = nn.MSELoss if kind == "several outputs" else nn.BCEWithLogitsLoss
    net = trained(make_net(NeuralNet, module=Two, module__n_out=2, criterion=criterion), (A, B), y)
    for output in (0, 1):
        est = SourceAttribution(measurement="prediction", output=output).fit(net, (A, B), y)
        assert est.transform((QA, QB)).shape == (M, N)
    est = SourceAttribution(measurement="neg_loss").fit(net, (A, B), y)
    assert est.transform((QA, QB), y[:M]).shape == (M, N)


class Pixels(nn.Module):
    """A value, or classes, at every pixel."""

    def __init__(self, n_out=1):
        super().__init__()
        self.conv = nn.Conv2d(1, n_out, 3, padding=1)

    def forward(self, x):
        return self.conv(x)


IMAGES = RNG.normal(size=(N, 1, 4, 4)).astype(np.float32)


def test_a_class_at_every_pixel():
    labels = (IMAGES[:, 0] > 0).astype(np.int64) + (IMAGES[:, 0] > 1)
    labels[:, 0, 0] = -100
    for cls in (NeuralNetClassifier, NeuralNet):
        net = trained(make_net(cls, module=Pixels, module__n_out=3, criterion=nn.CrossEntropyLoss), IMAGES, labels)
        est = SourceAttribution(random_state=0).fit(net, IMAGES, labels)
        assert est._network.is_sequence
        scores = est.transform(IMAGES[:M], labels[:M])
        assert (scores[range(M), range(M)] > 0).all()
        assert est.transform(IMAGES[:M]).shape == (M, N)
    labels[0] = -100  # an image without one label: it has no part in the training, and that is all
    net = trained(
        make_net(module=Pixels, cls=NeuralNet, module__n_out=3, criterion=nn.CrossEntropyLoss), IMAGES, labels
    )
    est = SourceAttribution(random_state=0).fit(net, IMAGES, labels)
    assert not est.transform(IMAGES[1:M], labels[1:M])[:, 0].any()
    with pytest.raises(ValueError, match="leave out sequences whose targets are all ignored"):
        est.transform(IMAGES[:M], labels[:M])


def test_distributions_as_targets():
    """A loss on log-probabilities classifies: its log-odds are those of the predicted class."""

    class LogSoftmax(Two):
        def forward(self, a, b):
            return super().forward(a, b).log_softmax(1)

    y = RNG.dirichlet(np.ones(3), N).astype(np.float32)
    net = make_net(NeuralNet, module=LogSoftmax, module__n_out=3, criterion=nn.KLDivLoss)
    net = trained(net.set_params(criterion__reduction="batchmean"), {"a": A, "b": B}, y)
    est = SourceAttribution().fit(net, {"a": A, "b": B}, y)
    assert est._network.predictive.name == "categorical_logprobs"
    assert est.transform({"a": QA, "b": QB}).any()
    with pytest.raises(ValueError, match="leave y out to take the predicted class"):
        est.transform({"a": QA, "b": QB}, y[:M])


def test_a_number_at_every_pixel():
    y = np.roll(IMAGES, 1, axis=3)
    net = trained(make_net(NeuralNetRegressor, module=Pixels), IMAGES, y)
    est = SourceAttribution(measurement="neg_loss", random_state=0).fit(net, IMAGES, y)
    scores = est.transform(IMAGES[:M], y[:M])
    np.testing.assert_allclose(scores[range(M), range(M)], est.self_influence()[:M], rtol=1e-4)
    pixel = SourceAttribution(output=(0, 2, 3)).fit(net, IMAGES, y)
    by_hand = SourceAttribution(measurement=lambda o, t: o[:, 0, 2, 3]).fit(net, IMAGES, y)
    np.testing.assert_allclose(pixel.transform(IMAGES[:M]), by_hand.transform(IMAGES[:M]))
    with pytest.raises(
        ValueError, match=r"expected output= to index a row's outputs of shape \(1, 4, 4\), got \(0, 9, 3\)"
    ):
        SourceAttribution(output=(0, 9, 3)).fit(net, IMAGES, y)


# --- what cannot be read ------------------------------------------------------------------------------------------


class Means(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(1, 1)

    def forward(self, x):
        return self.last(x.float().mean(1, keepdim=True))


@pytest.mark.parametrize("part", ["X", "y"])
def test_ragged_rows_are_refused(part):
    even = [[1.0, 2.0]] * 9 + [[1.0, 3.0]]
    ragged = [[1.0, 2.0]] * 9 + [[1.0, 2.0, 3.0]]
    X = np.array(even, dtype=np.float32)
    net = trained(make_net(module=Means, recorded=False), X, X[:, :1])
    with pytest.raises(ValueError, match=f"expected rows of one length in {part}.*pad them"):
        InfluenceFunctions().fit(net, ragged if part == "X" else X, X[:, :1] if part == "X" else ragged)
    with pytest.raises(ValueError, match="expected rows of one length in X.*pad them"):
        InfluenceFunctions().fit(net, X, X[:, :1]).transform(ragged)


def test_ragged_items_of_a_dataset():
    class Ragged(torch.utils.data.Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, i):
            return np.ones(1 + i % 2, dtype=np.float32), np.ones(1, dtype=np.float32)

    X = np.ones((6, 2), dtype=np.float32)
    net = trained(make_net(module=Means, recorded=False), X, X[:, :1])
    with pytest.raises(ValueError, match="cannot be put into one batch.*iterator_train__collate_fn"):
        InfluenceFunctions().fit(net, Ragged())


def test_inputs_of_different_lengths_and_names():
    net = trained(make_net(module=Two), {"a": A, "b": B}, Y)
    est = InfluenceFunctions().fit(net, {"a": A, "b": B}, Y)
    with pytest.raises(ValueError, match="same number of rows in X"):
        est.transform({"a": QA, "b": QB[:3]})
    with pytest.raises(ValueError, match="the network cannot read these queries"):
        est.transform({"a": QA, "c": QB})
    with pytest.raises(ValueError, match="the network cannot read these queries"):
        est.transform({"b": QB})
    with pytest.raises(ValueError, match="X with 20 rows and y with 19"):
        InfluenceFunctions().fit(net, {"a": A, "b": B}, Y[:19])


class Flat(nn.Module):
    """Tokens of all rows one below the other, as in many a language model; or time before rows."""

    def __init__(self, transposed=False):
        super().__init__()
        self.transposed = transposed
        self.layer = nn.Linear(1, 3)

    def forward(self, x):
        output = self.layer(x[..., None])
        return output.transpose(0, 1) if self.transposed else output.reshape(-1, 3)


@pytest.mark.parametrize("transposed", [False, True])
def test_outputs_that_are_not_one_per_row(transposed):
    class Loss(nn.Module):
        def forward(self, output, y):
            output = output.transpose(0, 1) if transposed else output
            return nn.functional.cross_entropy(output.reshape(-1, 3), y.reshape(-1))

    labels = RNG.randint(0, 3, (N, 3))
    net = trained(make_net(NeuralNet, module=Flat, module__transposed=transposed, criterion=Loss), A, labels)
    for method in [method for method in METHODS if method.__name__ != "RepresentationSimilarity"]:  # which asks no loss
        with pytest.raises(ValueError, match=r"for 4 rows the module returned .* let it return \(rows, \.\.\.\)"):
            method().fit(net, A, labels)


class OfIds(nn.Module):
    """One id per row."""

    def __init__(self):
        super().__init__()
        self.table, self.last = nn.Embedding(6, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.last(self.table(x.reshape(-1)))


@pytest.mark.parametrize("cls", METHODS)
def test_one_id_per_row(cls):
    ids = np.random.default_rng(0).integers(0, 6, 24)
    labels = (ids > 2).astype(np.int64)
    net = make_net(NeuralNetClassifier, OfIds, criterion=nn.CrossEntropyLoss).fit(ids, labels)
    method = cls()
    expected = method.fit(net, torch.from_numpy(ids), labels).transform(torch.from_numpy(ids[:3]))
    for form in (lambda v: v, list):
        np.testing.assert_allclose(method.fit(net, form(ids), labels).transform(form(ids[:3])), expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(4,), (1, 3, 3)])
def test_slices_of_a_dataset(shape):
    rng = np.random.default_rng(0)
    X, labels = rng.normal(size=(24, *shape)).astype("float32"), rng.integers(0, 2, 24)
    X_sliced, y_sliced = (SliceDataset(Dataset(X, labels), idx=i) for i in (0, 1))
    n_in = int(np.prod(shape))
    net = make_net(
        NeuralNetClassifier, lambda: nn.Sequential(nn.Flatten(), nn.Linear(n_in, 2)), criterion=nn.CrossEntropyLoss
    ).fit(X_sliced, y_sliced)
    expected = SourceAttribution(n_segments=2).fit(net, X, labels).transform(X[:3], labels[:3])
    found = SourceAttribution(n_segments=2).fit(net, X_sliced, y_sliced)
    np.testing.assert_array_equal(found.transform(X_sliced[:3], y_sliced[:3]), expected)
    np.testing.assert_array_equal(found.transform(X_sliced[:3]), found.transform(X[:3]))
