"""The record against the loss: what is counted, what is said; nothing of the user's is changed."""

from __future__ import annotations

import copy
import random
import warnings

import numpy as np
import pytest
import torch
from skorch import NeuralNetRegressor
from skorch.callbacks import Callback
from torch import nn

from sklearn_source import SourceAttribution, TracIn, Trajectory, TrajectoryRecorder
from sklearn_source.modules import MLP
from sklearn_source.trajectory._optimizer_kind import optimizer_kind

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 3)).astype(np.float32)
Y = X[:, :1] - X[:, 1:2] ** 2


class Scaled(NeuralNetRegressor):
    def train_step_single(self, batch, **fit_params):
        step = super().train_step_single(batch, **fit_params)
        for p in self.module_.parameters():
            p.grad.mul_(3.0)
        return step


class Accumulating(NeuralNetRegressor):
    def train_step(self, batch, **fit_params):
        step = self.train_step_single(batch, **fit_params)
        if len(self.history[-1, "batches"]) % 3 == 0:
            self.optimizer_.step()
            self.optimizer_.zero_grad()
        return step


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.norm, self.outer = nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Linear(6, 1)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x):
        return self.outer(self.dropout(torch.relu(self.norm(self.inner(x)))))


class Noisy(Callback):
    def on_grad_computed(self, net, named_parameters, **kwargs):
        for _, p in net.module_.named_parameters():
            p.grad.add_(torch.randn_like(p.grad) * p.grad.norm())


class Clamp(Callback):
    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            with torch.no_grad():
                for p in net.module_.parameters():
                    p.clamp_(-0.3, 0.3)


class Mask(Callback):
    def on_grad_computed(self, net, named_parameters, **kwargs):
        net.module_.layers[0].weight.grad[:, 0] = 0.0


def trained(cls=NeuralNetRegressor, module=MLP, callbacks=(), dirname=None, **options):
    torch.manual_seed(0)
    if module is MLP:
        options = {"module__n_features": 3, "module__hidden": (6,), **options}
    settings = {"lr": 0.05, "batch_size": 4, "max_epochs": 4, "train_split": None, "verbose": 0, **options}
    recorder = TrajectoryRecorder(4, dirname=dirname)
    return cls(module, callbacks=[*callbacks, recorder], **settings).fit(X, Y)


def verification(net):
    return Trajectory.from_net(net).verify(net, X, Y)


def test_a_plain_training_is_as_recorded():
    for net in (trained(), trained(module=Normed), trained(optimizer=torch.optim.Adam)):
        (stage,) = verification(net).stages
        assert len(stage.steps) == 3
        np.testing.assert_allclose(stage.ratio, 1, rtol=1e-4)
        np.testing.assert_allclose(stage.cosine, 1, rtol=1e-4)
        assert not stage.remarks
        assert stage.batches == (1, 1)


def test_a_constant_factor_is_the_rate():
    net = trained(Scaled)
    (stage,) = verification(net).stages
    assert set(stage.factors) == {name for name, _ in net.module_.named_parameters()}
    np.testing.assert_allclose(list(stage.factors.values()), 3, rtol=1e-4)
    assert "times 3: taken into account" in str(verification(net))
    factor_in_rate = trained(lr=0.15)  # the same training
    for method in (TracIn, SourceAttribution):
        expected = method().fit(factor_in_rate, X, Y).transform(X[:4])
        np.testing.assert_allclose(method().fit(net, X, Y).transform(X[:4]), expected, rtol=1e-3, atol=1e-5)


def test_batches_of_a_step_are_counted():
    net = trained(Accumulating)
    trajectory = Trajectory.from_net(net)
    np.testing.assert_array_equal(trajectory.stages[0].batches, np.full(8, 3))
    assert trajectory.integrated_learning_rate(0, 8)["layers.0.weight"] == pytest.approx(0.05 * 24)
    assert "3 batches a step" in str(trajectory.verify(net, X, Y))


def test_what_never_gets_a_gradient_scores_nothing():
    net = trained(callbacks=[Mask()])
    (stage,) = verification(net).stages
    mask = stage.masks["layers.0.weight"]
    assert not mask[:, 0].any()
    assert mask[:, 1:].all()
    with torch.no_grad():
        other = copy.deepcopy(net)
    est = SourceAttribution(n_segments=1, layers=["layers.0.weight"]).fit(other, X, Y)
    flow = est.trajectory_.stages[0]
    assert flow.masks.keys() == {"layers.0.weight"}
    (stage,) = verification(trained(module=Normed, optimizer=torch.optim.Adam)).stages
    assert stage.factors == {"inner.bias": 0.0}
    assert "inner.bias without gradient in training" in stage.verdict


def test_what_is_not_known_is_said_with_its_size():
    for callback, words in (
        (Noisy(), r"other gradients.*cosine 0\.\d"),
        (Clamp(), "changed the weights, after step 1 by 0"),
    ):
        net = trained(callbacks=[callback])
        with pytest.warns(UserWarning, match=words):
            SourceAttribution(n_segments=1).fit(net, X, Y)


def test_stored_observations_say_the_same(tmp_path):
    net = trained(Scaled, dirname=tmp_path / "run")
    expected = verification(net)
    for trajectory in (Trajectory.from_net(net), Trajectory.load(tmp_path / "run")):
        assert str(trajectory.verify(net, X, Y)) == str(expected)
    Trajectory.from_net(trained(Scaled)).save(tmp_path / "saved")
    assert str(Trajectory.load(tmp_path / "saved").verify(net, X, Y)) == str(expected)


def test_nothing_is_known_of_checkpoints_given_by_hand():
    net = trained()
    start, end = ({k: v.clone() for k, v in net.module_.state_dict().items()} for _ in range(2))
    trajectory = Trajectory.from_checkpoints([start, end], [0, 24], 0.05, module=net.module_, n_rows=24, X=X, y=Y)
    assert "nothing could be verified" in str(trajectory.verify(net, X, Y))


class DrawsEverywhere(MLP):
    def forward(self, x):
        if not self.training:
            return super().forward(x)
        return super().forward(x) + 0.01 * (random.random() + np.random.rand() + torch.rand(()).item())


@pytest.mark.parametrize("module", [Normed, DrawsEverywhere])
def test_verifying_changes_nothing(module):
    options = {"module__n_features": 3} if module is DrawsEverywhere else {}
    net = trained(module=module, **options)
    before = {name: value.clone() for name, value in net.module_.state_dict().items()}
    python = random.getstate()
    state, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()
    n_epochs, mode = len(net.history), net.module_.training
    verification(net)
    assert random.getstate() == python
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpys).all()
    assert (len(net.history), net.module_.training) == (n_epochs, mode)
    for name, value in net.module_.state_dict().items():
        assert torch.equal(value, before[name])


def test_optimizers_are_known_by_their_step():
    class Silent(torch.optim.SGD):
        pass

    class SGD(torch.optim.SGD):
        def step(self, closure=None):
            return super().step(closure)

    parameters = [nn.Parameter(torch.zeros(2))]
    assert optimizer_kind(torch.optim.AdamW(parameters)) == "AdamW"
    assert optimizer_kind(Silent(parameters, lr=0.1)) == "SGD"
    assert optimizer_kind(SGD(parameters, lr=0.1)).endswith("SGD")
    assert optimizer_kind(SGD(parameters, lr=0.1)) != "SGD"


class Annealed(NeuralNetRegressor):
    def get_loss(self, *args, **kwargs):
        return self.history[-1, "epoch"] * super().get_loss(*args, **kwargs)


def test_each_checkpoint_has_its_own_loss():
    net = trained(Annealed, lr=0.01)
    est = TracIn().fit(net, X, Y)
    states = [term[0] for term in est._checkpoint_terms]
    x, y = est._rows.batch(np.arange(4))
    sizes = []
    for state in states:
        est._network.load(est._gradients.trained.parameters, est._gradients.trained.buffers, state.outside)
        output = est._network.forward(x)
        sizes.append(float(est._network.row_loss(output, y, x).sum()) / state.outside["epochs"])
    np.testing.assert_allclose(sizes, sizes[0], rtol=1e-5)
    assert {state.outside["epochs"] for state in states} == {1, 2, 3, 4}


def test_a_resumed_training_is_said():
    net = trained()
    twin = NeuralNetRegressor(
        MLP, module__n_features=3, module__hidden=(6,), train_split=None, verbose=0, max_epochs=2, lr=0.05,
        callbacks=[TrajectoryRecorder()],
    ).initialize()  # fmt: skip
    twin.module_.load_state_dict(net.module_.state_dict())
    twin.history = copy.deepcopy(net.history)
    twin.partial_fit(X, Y)
    with pytest.warns(UserWarning, match="history has 6 epochs, of which its TrajectoryRecorder saw the last 2"):
        Trajectory.from_net(twin)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Trajectory.from_net(net.partial_fit(X, Y))
