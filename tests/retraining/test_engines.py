"""Both engines train the same networks, and both train what a loop written by hand trains."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import EarlyStopping, EpochScoring, GradientNormClipping, LRScheduler
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau, StepLR

from sklearn_source import TrajectoryRecorder
from sklearn_source.modules import MLP
from sklearn_source.retraining import retrain_on_subsets
from tests.retraining._problems import (
    N_FEATURES,
    assert_same_states,
    binary,
    both,
    chosen,
    classifier,
    double_mlp,
    make_net,
    rows,
    task_of,
)


class Norm(nn.Module):
    """Buffers that training moves, a frozen layer, and a lazy one."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.LazyLinear(6), nn.BatchNorm1d(6), nn.Linear(6, 1)
        self.last.requires_grad_(False)

    def forward(self, X):
        return self.last(torch.relu(self.norm(self.first(X))))


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.out = nn.Conv1d(1, 3, 2), nn.LayerNorm(3), nn.Linear(3, 1)
        self.scale = nn.Parameter(torch.ones(2, 3))

    def forward(self, X):
        return self.out(self.norm(self.conv(X[:, None]).amax(-1)) * self.scale.sum(0))


class Penalised(NeuralNetRegressor):
    def get_loss(self, y_pred, y_true, X=None, training=False):
        loss = super().get_loss(y_pred, y_true, X=X, training=training)
        return loss + 0.05 * sum(p.abs().sum() for p in self.module_.parameters())


SGD = {"optimizer__momentum": 0.9, "optimizer__weight_decay": 1e-3, "lr": 0.02}
NETS = {
    "SGD with momentum": lambda: make_net(**SGD),
    "Nesterov, steps": lambda: make_net(
        **SGD, optimizer__nesterov=True, callbacks=[LRScheduler(StepLR, step_size=3, gamma=0.5)]
    ),
    "dampening, one cycle per batch": lambda: make_net(
        **SGD, optimizer__dampening=0.3,
        callbacks=[LRScheduler(OneCycleLR, max_lr=0.05, total_steps=200, step_every="batch")],
    ),
    "AdamW, cosine": lambda: make_net(
        optimizer=torch.optim.AdamW, lr=0.01, optimizer__weight_decay=0.1,
        callbacks=[("lr", LRScheduler("CosineAnnealingLR", T_max=9)), TrajectoryRecorder()], callbacks__lr__T_max=20,
    ),
    "Adam, coupled decay": lambda: make_net(optimizer=torch.optim.Adam, lr=0.01, optimizer__weight_decay=0.1),
    "RMSprop": lambda: make_net(optimizer=torch.optim.RMSprop, lr=0.002, optimizer__momentum=0.5),
    "parameter groups": lambda: make_net(
        optimizer__param_groups=[("layers.0.*", {"lr": 0.001}), ("*bias", {"weight_decay": 0.1})]
    ),
    "in order, dropping the rest": lambda: make_net(iterator_train__shuffle=False, iterator_train__drop_last=True),
    "all rows in a batch": lambda: make_net(batch_size=-1),
    "batch size of the iterator": lambda: make_net(iterator_train__batch_size=5, lr=0.02),
    "norm, frozen and lazy": lambda: make_net(module=Norm),
    "convolution": lambda: make_net(module=Convolution, lr=0.002),
    "factory": lambda: make_net(module=functools.partial(MLP, hidden=(5,), n_features=N_FEATURES)),
    "penalty": lambda: make_net(Penalised),
    "metrics": lambda: make_net(callbacks=[EpochScoring("r2", on_train=True)]),
    "cross-entropy": lambda: classifier(**SGD),
    "class weights": lambda: classifier(criterion__weight=torch.tensor([1.0, 2.0, 5.0])),
    "probabilities": lambda: make_net(NeuralNetClassifier, module__n_outputs=3, module__softmax=True),
    "binary": lambda: binary(optimizer=torch.optim.Adam, lr=0.01),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler")
@pytest.mark.parametrize("name", NETS)
def test_same_networks_after_12_epochs(name):
    net = NETS[name]().set_params(max_epochs=12)
    kind = "binary" if name == "binary" else "classes" if isinstance(net, NeuralNetClassifier) else "regression"
    X, y, X_query = rows(kind)
    y_query = None if kind == "regression" else y[: len(X_query)]
    task, units = task_of(net, X, y, X_query, y_query=y_query, n_subsets=2)
    if name == "convolution":  # gains nothing, and is taken where asked for: its trial agrees with skorch
        assert chosen(task, units, "vectorized")[0] == "vectorized"
    else:
        assert chosen(task, units) == ("vectorized", "a trial of it gave what skorch gives")
    skorch_states, stacked = both(task, units)
    assert_same_states(skorch_states, stacked)
    initial, final = skorch_states[0][0], skorch_states[1][0]
    assert any(not torch.allclose(initial[n], final[n], atol=1e-2) for n in initial)  # repeats are other networks


def test_against_a_loop_by_hand():
    X, y, X_query = rows(dtype=np.float64)
    net = make_net(module=double_mlp, **SGD, callbacks=[LRScheduler(StepLR, step_size=2, gamma=0.1)])
    found = retrain_on_subsets(net, X, y, X_query, n_subsets=2, subset_size=20, n_repeats=2, random_state=3)
    for j, r in np.ndindex(2, 2):
        seed, own = int(found.seeds[j, r]), np.flatnonzero(found.masks[j])
        torch.manual_seed(seed)
        module = double_mlp()
        optimizer = torch.optim.SGD(module.parameters(), 0.02, momentum=0.9, weight_decay=1e-3)
        for epoch in range(4):
            order = np.random.default_rng([seed, epoch]).permutation(own)
            for batch in (order[:8], order[8:16], order[16:]):
                optimizer.zero_grad()
                (module(torch.from_numpy(X[batch])) - torch.from_numpy(y[batch])).square().mean().backward()
                optimizer.step()
            if epoch == 1:
                optimizer.param_groups[0]["lr"] *= 0.1
        expected = module(torch.from_numpy(X_query)).detach().numpy()[:, 0]
        np.testing.assert_allclose(found.outputs[j, r], expected, rtol=1e-9)


class Stepper(NeuralNetRegressor):
    def train_step(self, batch, **fit_params):
        return super().train_step(batch, **fit_params)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(N_FEATURES, 1)

    def forward(self, X):
        return self.linear(X) if self.linear.bias.sum() > 0 else self.linear(2 * X)


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(N_FEATURES, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self, X):
        return self.layers(X)


class Noisy(NeuralNetRegressor):
    """A loss that draws its own random numbers, where no list of modules shows it."""

    def get_loss(self, y_pred, y_true, X=None, training=False):
        return super().get_loss(y_pred, y_true, X=X, training=training) * np.random.rand()


ONE_BY_ONE = {
    "EarlyStopping": (
        lambda: make_net(callbacks=[EarlyStopping("train_loss", patience=1)]),
        "EarlyStopping may change",
    ),
    "clipping": (lambda: make_net(callbacks=[GradientNormClipping(0.1)]), "GradientNormClipping may change"),
    "plateau": (
        lambda: make_net(callbacks=[LRScheduler(ReduceLROnPlateau, monitor="train_loss")]),
        "ReduceLROnPlateau",
    ),
    "LBFGS": (lambda: make_net(optimizer=torch.optim.LBFGS, lr=0.1), "LBFGS is not known"),
    "train_step": (lambda: make_net(Stepper), "train_step of its own"),
    "branch": (lambda: make_net(module=Branching), "cannot be vectorized"),
    "dropout": (lambda: make_net(module=Dropping), "Dropout draws random numbers"),
    "random loss": (lambda: make_net(Noisy), "other networks than skorch"),
    "collate": (
        lambda: make_net(iterator_train__collate_fn=torch.utils.data.default_collate),
        "batches in a way of its own",
    ),
}


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_nets_that_are_trained_one_by_one(name):
    make, reason = ONE_BY_ONE[name]
    X, y, X_query = rows()
    found = retrain_on_subsets(make(), X, y, X_query, n_subsets=2, n_repeats=1, random_state=0)
    assert found.settings["engine"] == "joblib"
    assert reason in found.settings["engine_reason"]
    again = retrain_on_subsets(make(), X, y, X_query, n_subsets=2, n_repeats=1, random_state=0, engine="joblib")
    np.testing.assert_array_equal(found.outputs, again.outputs)
    assert np.ptp(found.outputs[:, 0], axis=0).min() > 0
    with pytest.raises(ValueError, match="can train, got one that it cannot"):
        retrain_on_subsets(make(), X, y, X_query, n_subsets=2, n_repeats=1, engine="vectorized")


def test_a_dataset_is_trained_one_by_one_and_gives_the_same():
    X, y, X_query = rows()

    class Own(torch.utils.data.Dataset):
        def __len__(self):
            return len(X)

        def __getitem__(self, i):
            return X[i], y[i]

    options = {"n_subsets": 2, "n_repeats": 1, "random_state": 0}
    found = retrain_on_subsets(make_net(), Own(), None, X_query, **options)
    assert "dataset of the user's" in found.settings["engine_reason"]
    expected = retrain_on_subsets(make_net(), X, y, X_query, engine="vectorized", **options)
    np.testing.assert_allclose(found.outputs, expected.outputs, atol=1e-5)


def test_schedules_of_a_class_are_used():
    X, y, X_query = rows()
    fixed, annealed = (
        retrain_on_subsets(
            make_net(callbacks=callbacks), X, y, X_query, n_subsets=2, n_repeats=1, random_state=0, engine="vectorized"
        )
        for callbacks in (None, [LRScheduler(CosineAnnealingLR, T_max=4)])
    )
    assert not np.allclose(fixed.outputs, annealed.outputs, atol=1e-3)


def test_networks_that_gain_nothing_are_trained_one_by_one_unless_asked():
    X, y, X_query = rows()
    large = make_net(module__hidden=(1000, 500), max_epochs=1)
    for net, reason in ((make_net(module=Convolution), "convolutions"), (large, "506,001 parameters")):
        task, units = task_of(net, X, y, X_query, n_subsets=1, n_repeats=2)
        name, why = chosen(task, units)
        assert (name, reason in why) == ("joblib", True)
        assert chosen(task, units, "vectorized") == ("vectorized", "asked for")
