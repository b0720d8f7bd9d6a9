from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.utils import check_random_state
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklearn_source.network import Network


class Body(nn.Module):
    """Dropout, batch norm, and something kept from the last forward, as attention maps often are."""

    def __init__(self, n_out=1):
        super().__init__()
        self.first, self.norm, self.drop = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)
        self.last = nn.Linear(8, n_out)

    def forward(self, X):
        self.kept = [self.drop(self.norm(self.first(X)).relu())]
        return self.last(self.kept[0])


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 4, bias=False)
        self.b.weight = self.a.weight

    def forward(self, X):
        return self.b(self.a(X).tanh())[:, :1]


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(32, 4)).astype(np.float32)
    return X, X[:, :1] * 2 + 1


@pytest.fixture
def net(data):
    torch.manual_seed(0)
    return NeuralNetRegressor(Body, max_epochs=2, batch_size=8, train_split=None, verbose=0).fit(*data)


def forward(network, X):
    with torch.no_grad():
        return network.forward(network.prepare(X).batch(slice(None))[0])


@pytest.mark.parametrize(
    ("cls", "criterion", "expected", "classifies"),
    [
        (NeuralNet, nn.CrossEntropyLoss, "categorical", True),
        (NeuralNetClassifier, nn.CrossEntropyLoss, "categorical", True),
        (NeuralNetClassifier, nn.NLLLoss, "categorical_probs", True),
        (NeuralNet, nn.NLLLoss, "categorical_logprobs", True),
        (NeuralNetBinaryClassifier, nn.BCEWithLogitsLoss, "bernoulli", True),
        (NeuralNet, nn.BCEWithLogitsLoss, "bernoulli", True),
        (NeuralNetRegressor, nn.MSELoss, "gaussian", False),
        (NeuralNetRegressor, nn.L1Loss, "laplace", False),
        (NeuralNetRegressor, nn.HuberLoss, "unknown", False),
        (NeuralNetRegressor, nn.SmoothL1Loss, "unknown", False),
        (NeuralNetClassifier, nn.MultiMarginLoss, "unknown", True),
    ],
)
def test_what_outputs_parametrise(cls, criterion, expected, classifies):
    network = Network.from_net(cls(Body, criterion=criterion).initialize())
    assert network.predictive.name == expected
    assert network.is_classification is classifies


def test_an_override_that_takes_log_probabilities_is_seen():
    class LogSoftmax(NeuralNetClassifier):
        def get_loss(self, y_pred, y_true, X=None, training=False):
            return NeuralNet.get_loss(self, y_pred, y_true, X, training)

    class Other(NeuralNetClassifier):
        def get_loss(self, y_pred, y_true, X=None, training=False):
            return super().get_loss(y_pred, y_true, X, training) ** 2

    assert Network.from_net(LogSoftmax(Body).initialize()).predictive.name == "categorical_logprobs"
    assert Network.from_net(Other(Body).initialize()).predictive.name == "unknown"


def test_outputs_are_those_of_predict(net, data):
    network = Network.from_net(net)
    assert not any(m.training for m in network.module.modules())
    np.testing.assert_allclose(forward(network, data[0]).numpy(), net.predict(data[0]), rtol=1e-6)


def snapshot(net):
    module = net.module_
    return {
        "keys": list(vars(net)),
        "ids": {k: id(v) for k, v in vars(net).items()},
        "training": [m.training for m in module.modules()],
        "hooks": [len(d) for m in module.modules() for k, d in vars(m).items() if k.endswith("_hooks")],
        "attributes": [sorted(vars(m)) for m in module.modules()],
        "state": {k: v.clone() for k, v in module.state_dict().items()},
        "pointers": [p.data_ptr() for p in module.parameters()],
        "requires": [p.requires_grad for p in module.parameters()],
        "grads": [None if p.grad is None else p.grad.clone() for p in module.parameters()],
        "criterion": dict(vars(net.criterion_)),
        "torch": torch.random.get_rng_state(),
        "numpy": check_random_state(None).get_state()[1].copy(),
        "history": copy.deepcopy(net.history),
    }


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    return a == b


def test_the_users_net_is_untouched(net, data):
    X, y = data
    net.module_.train()
    net.module_.last.bias.requires_grad_(False)
    calls = []
    net.module_.first.register_forward_hook(lambda *_: calls.append(1))
    net.module_.first.register_full_backward_hook(lambda *_: calls.append(1))
    before = snapshot(net)
    with pytest.warns(UserWarning, match="forward hooks on Linear are left out"):
        network = Network.from_net(net)
    rows = network.prepare(X, y)
    network.calibrate(rows)
    x, t = rows.batch(slice(None))
    output = network.forward(x)
    network.row_loss(output, t).sum().backward()
    list(network.row_loss.output_hessian(output, t).columns())
    zeros = {k: torch.zeros_like(v) for k, v in network.parameters().items()}
    network.load(zeros, {k: torch.zeros_like(v) for k, v in network.buffers().items()})
    assert not forward(network, X).any()
    pickle.dumps(network)
    after = snapshot(net)
    assert not calls
    assert [k for k in before if not same(before[k], after[k])] == []
    assert X.flags.owndata
    assert network.module.get_parameter("first.weight").grad is not None  # the private copy did get gradients


def test_torchs_own_hooks_stay(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 1)))
    net = NeuralNetRegressor(module, max_epochs=1, train_split=None, verbose=0).fit(*data)
    network = Network.from_net(net)
    np.testing.assert_allclose(forward(network, data[0]).numpy(), net.predict(data[0]), rtol=1e-6)
    network.load({k: torch.zeros_like(v) + 1 for k, v in network.parameters().items()})
    got = forward(network, data[0])[:, 0].numpy()
    np.testing.assert_allclose(got, data[0].sum(1) / 2 + 1, rtol=1e-5)  # g v / |v| with v of four ones


def test_load_swaps_without_copying(net):
    network = Network.from_net(net)
    values = {k: torch.randn_like(v) for k, v in network.parameters().items()}
    network.load(values)
    assert all(network.parameters()[k].data_ptr() == v.data_ptr() for k, v in values.items())
    network.load({k: v.double() for k, v in values.items()})
    assert {p.dtype for p in network.parameters().values()} == {torch.float32}
    assert all(p.requires_grad for p in network.module.parameters())


@pytest.mark.parametrize("what", ["parameters", "buffers"])
def test_load_refuses_what_is_not_its_own(net, what):
    network = Network.from_net(net)
    good = {"parameters": network.parameters(), "buffers": network.buffers()}
    name = next(iter(good[what]))
    before = {k: v.clone() for k, v in network.module.state_dict().items()}
    missing = {k: v for k, v in good[what].items() if k != name}
    shape = {**good[what], name: torch.zeros(3, 3, 3)}
    zeros = {k: torch.zeros_like(v) for k, v in good["parameters"].items()}
    for wrong, match in (
        (missing, "missing"),
        ({**good[what], "foreign": torch.zeros(1)}, "foreign"),
        (shape, "shape"),
        ([1], "mapping"),
    ):
        with pytest.raises(ValueError, match=match):
            network.load(**{"parameters": zeros, "buffers": good["buffers"], what: wrong})
    assert same(before, dict(network.module.state_dict()))


def test_tied_parameters_are_loaded_once():
    network = Network.from_net(NeuralNetRegressor(Tied).initialize())
    network.load({"a.weight": torch.eye(4), "a.bias": torch.zeros(4)})
    torch.testing.assert_close(network.module.b.weight.data, torch.eye(4))


def test_pickle(net, data):
    network = Network.from_net(net)
    rows = network.prepare(*data)
    network.calibrate(rows)
    network.load({k: 2 * v for k, v in network.parameters().items()})
    again = pickle.loads(pickle.dumps(network))
    torch.testing.assert_close(forward(again, data[0]), forward(network, data[0]))
    assert again.module is again._private_net.net.module_
    assert again.module is again.row_loss.batch_loss.private_net.net.module_
    x, y = rows.batch(slice(None))
    torch.testing.assert_close(again.row_loss(again.forward(x), y), network.row_loss(network.forward(x), y))
    assert len(pickle.dumps(network)) < 40_000  # no optimizer state, no data, no second copy of the weights


def test_pickle_keeps_the_calibration(data):
    net = NeuralNetClassifier(
        Body(3), criterion=nn.CrossEntropyLoss, criterion__weight=torch.tensor([1.0, 2, 3])
    ).initialize()
    network, y = Network.from_net(net), np.arange(32) % 3
    network.calibrate(network.prepare(data[0], y))
    again = pickle.loads(pickle.dumps(network))
    x, t = again.prepare(data[0], y).batch([2])
    torch.testing.assert_close(again.row_loss(again.forward(x), t), network.row_loss(network.forward(x), t))


def test_a_network_of_a_local_class_goes_through_cloudpickle(data):
    cloudpickle = pytest.importorskip("cloudpickle")

    class Local(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def forward(self, X):
            return self.layer(X)

    network = Network.from_net(NeuralNetRegressor(Local).initialize())
    again = pickle.loads(cloudpickle.dumps(network))
    torch.testing.assert_close(forward(again, data[0]), forward(network, data[0]))


class TwoModules(NeuralNet):
    def initialize_module(self):
        super().initialize_module()
        self.other_ = nn.Linear(1, 1)
        return self


@pytest.mark.parametrize(
    ("net", "error", "match"),
    [
        (NeuralNetRegressor(Body), NotFittedError, "not initialized"),
        (NeuralNetRegressor, TypeError, "the class NeuralNetRegressor"),
        (LinearRegression(), TypeError, "LinearRegression"),
        (None, TypeError, "skorch net"),
        (TwoModules(Body, criterion=nn.MSELoss).initialize(), ValueError, "single module"),
        (NeuralNetRegressor(nn.LazyLinear(1)).initialize(), NotFittedError, "lazy"),
    ],
    ids=["uninitialized", "class", "sklearn", "none", "two modules", "lazy"],
)
def test_nets_that_cannot_be_read(net, error, match):
    with pytest.raises(error, match=match):
        Network.from_net(net)


def test_a_module_without_parameters(net):
    vars(net)["module_"] = nn.ReLU()
    with pytest.raises(ValueError, match="without: nothing in it was trained"):
        Network.from_net(net)


def test_a_module_that_cannot_be_copied():
    module = nn.Sequential(nn.Linear(2, 1))
    net = NeuralNetRegressor(module).initialize()
    net.module_.stream = (i for i in range(3))
    with pytest.raises(TypeError, match="can be copied"):
        Network.from_net(net)


def test_float64_and_dtype(data):
    net = NeuralNetRegressor(nn.Linear(4, 1).double()).initialize()
    network = Network.from_net(net)
    assert network.dtype == torch.float64
    assert network.device == torch.device("cpu")
    assert forward(network, data[0]).dtype == torch.float64


def test_a_module_that_returns_no_tensor(data):
    class Dictionary(nn.Linear):
        def forward(self, X):
            return {"out": super().forward(X)}

    network = Network.from_net(NeuralNetRegressor(Dictionary(4, 1)).initialize())
    with pytest.raises(TypeError, match="returns a tensor"):
        forward(network, data[0])


class Steep(nn.Module):
    """What a signature has to see: an attribute that nothing else shows, and a function that is called."""

    def __init__(self, steepness=1.0):
        super().__init__()
        self.out, self.steepness = nn.Linear(3, 1), steepness

    def forward(self, x):
        return _bend(self.steepness * self.out(x))


def _bend(x):
    return x.tanh()


def test_the_signature_sees_attributes_and_what_the_module_calls(monkeypatch):
    def signature(**options):
        return Network.from_net(NeuralNetRegressor(Steep, **options).initialize()).signature()

    one = signature()
    assert signature() == one
    assert signature(module__steepness=2.0) != one
    monkeypatch.setitem(globals(), "_bend", torch.relu)
    assert signature() != one
