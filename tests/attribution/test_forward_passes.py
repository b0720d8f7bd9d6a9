"""Forward passes that do more than call layers: mixed precision, checkpoints, what differs in training."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from skorch import NeuralNet, NeuralNetClassifier
from torch import nn
from torch.utils.checkpoint import checkpoint

from sklearn_source import InfluenceFunctions, RepresentationSimilarity, SourceAttribution, TracIn, TrajectoryRecorder

rng = np.random.default_rng(0)
X = rng.normal(size=(48, 6)).astype("float32")
y = (X[:, 0] > 0).astype("int64")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 2)

    def hidden(self, x):
        return torch.tanh(self.first(x))

    def forward(self, x):
        return self.second(self.hidden(x))


class Checkpointed(Net):
    def forward(self, x):
        return self.second(checkpoint(self.hidden, x.requires_grad_(), use_reentrant=True))


class TurnsGradientsOn(Net):
    def forward(self, x):
        with torch.enable_grad():
            return super().forward(x)


class Autocast(Net):
    casts = False

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().forward(x.bfloat16() if self.casts else x)


class CastsToo(Autocast):
    casts = True


class Halves(Net):
    def __init__(self):
        super().__init__()
        self.to(torch.bfloat16)

    def forward(self, x):
        return super().forward(x.bfloat16()).float()


class BatchStatistics(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8, track_running_stats=False)

    def hidden(self, x):
        return self.norm(super().hidden(x))


class Squeezes(Net):
    def forward(self, x):
        return super().forward(x)[:, :1].squeeze()


class Scripted(Net):
    def __init__(self):
        super().__init__()
        self.first = torch.jit.script(self.first)


def train(module, X=X, y=y, cls=NeuralNetClassifier, **options):
    torch.manual_seed(0)
    options = {"criterion": nn.CrossEntropyLoss, "lr": 0.1, "batch_size": 12, "max_epochs": 5, **options}
    recorder = TrajectoryRecorder(n_checkpoints=4)
    return cls(module, train_split=None, verbose=0, callbacks=[recorder], **options).fit(X, y)


def same_weights(net, module):
    """A net of another module that took the very steps of ``net``."""
    other = copy.deepcopy(net)
    other.module_.__class__ = module
    return other


METHODS = [SourceAttribution(n_segments=2), InfluenceFunctions(), TracIn()]


@pytest.mark.parametrize("module", [Checkpointed, TurnsGradientsOn, Autocast, CastsToo])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_scores_are_those_of_the_plain_forward_pass(module, method):
    net = train(module)
    expected = method.fit(same_weights(net, Net), X, y).transform(X[:4])
    before = (
        torch.get_autocast_dtype("cpu"),
        torch.is_autocast_enabled("cpu"),
        torch.utils.checkpoint.CheckpointFunction,
    )
    actual = method.fit(net, X, y).transform(X[:4])
    tolerance = 2e-2 if module is CastsToo else 1e-5  # rounded inputs
    np.testing.assert_allclose(actual, expected, tolerance, tolerance * np.abs(expected).max())
    after = torch.get_autocast_dtype("cpu"), torch.is_autocast_enabled("cpu"), torch.utils.checkpoint.CheckpointFunction
    assert after == before


def test_a_net_that_infers_under_autocast():
    class Mixed(NeuralNetClassifier):
        def infer(self, x, **params):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return super().infer(x, **params)

    net = train(Net, cls=Mixed)
    plain = copy.deepcopy(net)
    plain.__class__ = NeuralNetClassifier
    for method in METHODS:
        expected = method.fit(plain, X, y).transform(X[:4])
        np.testing.assert_allclose(
            method.fit(net, X, y).transform(X[:4]), expected, 1e-4, 1e-5 * np.abs(expected).max()
        )


def test_autocast_around_everything_changes_nothing():
    net = train(Net)
    for method in (*METHODS, RepresentationSimilarity()):
        expected = method.fit(net, X, y).transform(X[:4]), method.self_influence()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            actual = method.fit(net, X, y).transform(X[:4]), method.self_influence()
            assert torch.is_autocast_enabled("cpu")
        assert all(np.array_equal(a, b) for a, b in zip(actual, expected))


def test_weights_in_half_precision_are_warned_of():
    net, plain = train(Halves), train(Net)  # of nearly the same weights
    for method in METHODS:
        expected = method.fit(plain, X, y).transform(X[:4])
        with pytest.warns(UserWarning, match="weights of the network are bfloat16: gradients are formed in float32"):
            actual = method.fit(net, X, y).transform(X[:4])
        np.testing.assert_allclose(actual, expected, 0.02, 0.02 * np.abs(expected).max())
    assert net.module_.first.weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("module", "match"),
    [
        (BatchStatistics, r"single row .*\['norm'\] take statistics over the batch in evaluation mode too"),
        (Squeezes, r"single row the module returned a tensor of shape \(\), for 4 rows \(4,\): name the axis"),
        (Scripted, r"got TorchScript in \['first'\]: build the net from the modules that were given to torch.jit"),
    ],
)
def test_what_cannot_be_attributed_is_said_by_name(module, match):
    binary = {"criterion": nn.BCEWithLogitsLoss, "cls": NeuralNet} if module is Squeezes else {}
    targets = y.astype("float32") if binary else y
    net = train(module, y=targets, **binary)
    for method in METHODS:
        with pytest.raises(ValueError, match=match):
            method.fit(net, X, targets)


def doubled(batch):
    xs, ys = zip(*batch)
    return 2 * torch.as_tensor(np.stack(xs)), torch.as_tensor(np.stack(ys))


class DoublesInTraining(NeuralNetClassifier):
    def infer(self, x, **params):
        return super().infer(2 * x if self.module_.training else x, **params)


class NoisyInTraining(NeuralNetClassifier):
    def infer(self, x, **params):
        return super().infer(x + torch.randn_like(x) if self.module_.training else x, **params)


class WithDropout(Net):
    """Its dropout, of no consequence to gradients, must not hide what is."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(1e-9)

    def hidden(self, x):
        return self.dropout(super().hidden(x))


@pytest.mark.parametrize("module", [Net, WithDropout])
@pytest.mark.parametrize(
    "way", [{"iterator_train__collate_fn": doubled}, {"cls": DoublesInTraining}], ids=["collate", "infer"]
)
@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_rows_are_as_training_had_them_and_queries_as_predict_does(method, way, module):
    expected = method.fit(train(module, 2 * X), 2 * X, y).transform(X[:4])
    own = method.fit(train(module, **way), X, y)
    state = torch.get_rng_state()
    np.testing.assert_allclose(own.transform(X[:4]), expected, 1e-5, 1e-6 * np.abs(expected).max())
    assert torch.equal(state, torch.get_rng_state())


def test_noise_in_training_is_left_out():
    net = train(Net, cls=NoisyInTraining)
    plain = copy.deepcopy(net)
    plain.__class__ = NeuralNetClassifier
    scores = TracIn().fit(net, X, y).transform(X[:4])
    np.testing.assert_array_equal(scores, TracIn().fit(plain, X, y).transform(X[:4]))


class ModelOutput(dict):
    """As Hugging Face's: a mapping whose entries are attributes too."""

    def __getattr__(self, name):
        return self[name]


class ReturnsFields(Net):
    def forward(self, x):
        return ModelOutput(loss=None, logits=super().forward(x))


class OfFields(NeuralNet):
    def get_loss(self, y_pred, y_true, **params):
        return nn.functional.cross_entropy(y_pred.logits, y_true)


class InfersLogits(NeuralNetClassifier):
    def infer(self, x, **fit_params):
        return super().infer(x, **fit_params)["logits"]


def test_outputs_with_fields():
    net = train(ReturnsFields, cls=OfFields)
    for method in (*METHODS, RepresentationSimilarity()):
        with pytest.raises(
            TypeError, match=r"^expected a module that returns a tensor .* got a ModelOutput of \['loss', "
        ):
            method.fit(net, X, y)
    with pytest.raises(TypeError, match=r"return the tensor that is the prediction, super\(\).*\['logits'\]$"):
        TracIn().fit(net, X, y)
    advised = train(ReturnsFields, cls=InfersLogits)
    expected = TracIn().fit(train(Net), X, y).transform(X[:3])
    np.testing.assert_allclose(TracIn().fit(advised, X, y).transform(X[:3]), expected, 1e-5)


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Linear(6, 4)

    def forward(self, a, b):
        return self.f(a), self.f(b)


class OfPairs(NeuralNet):
    def get_loss(self, y_pred, y_true, **params):
        return nn.functional.cosine_embedding_loss(*y_pred, y_true)


class OfOnePair(OfPairs):
    def infer(self, x, **fit_params):
        return self.module_(*x, **fit_params)


@pytest.mark.parametrize("as_dict", [True, False])
def test_siamese_pairs_are_not_told_to_train_again(as_dict):
    other = rng.normal(size=X.shape).astype("float32")
    pairs = {"a": X, "b": other} if as_dict else (X, other)
    signs = (2 * y - 1).astype("float32")
    net = train(Siamese, pairs, signs, cls=OfPairs if as_dict else OfOnePair, criterion=nn.CosineEmbeddingLoss)
    for method in (SourceAttribution(measurement="neg_loss"), TracIn(measurement="neg_loss")):
        message = ""
        try:  # right where losses of several outputs are, else said plainly
            method.fit(net, pairs, signs)
        except ValueError as error:
            message = str(error)
        assert not message or "further outputs of its module" in message
        assert "train it again" not in message


def test_warnings_of_torch_do_not_come_through():
    class Cube(Net):
        def __init__(self):
            super().__init__()
            self.size = nn.Parameter(torch.ones(3))

        def forward(self, x):
            table = torch.cumprod(self.size, 0)  # no batching rule of its own, no layer
            return super().forward(x) * torch.index_select(table, 0, torch.tensor([0, 2]))

    net = train(Cube)
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        for method in METHODS:
            method.fit(net, X, y).transform(X[:3])
    assert {str(w.message).split(":")[0] for w in record} <= {
        "no quick way of per-row gradients fits how the network uses size"
    }
