"""The private copy of a net: what is copied, and that the user's own is not touched."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.utils import check_random_state
from skorch import NeuralNetRegressor
from torch import nn

from sklearn_source.network import Network
from tests.network._regressor import forward


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


def test_a_module_that_cannot_be_copied():
    module = nn.Sequential(nn.Linear(2, 1))
    net = NeuralNetRegressor(module).initialize()
    net.module_.stream = (i for i in range(3))
    with pytest.raises(TypeError, match="can be copied"):
        Network.from_net(net)
