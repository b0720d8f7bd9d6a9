"""A diffusion model as a skorch net: what it trains on is known afterwards, and what it samples is right."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from skorch.callbacks import Callback
from torch import nn

from sklearn_source import GradientSimilarity, Trajectory, TrajectoryRecorder
from sklearn_source.diffusion import DiffusionNet
from sklearn_source.network import Network
from tests._diffusion_nets import Denoiser, rows, small_net


class Watch(Callback):
    """Keeps every training batch and its loss."""

    def on_train_begin(self, net, **kwargs):
        self.batches_, self.losses_, self.epochs_ = [], [], []

    def on_batch_end(self, net, batch, training, loss, **kwargs):
        self.batches_.append(batch[0].clone())
        self.losses_.append(float(loss))
        self.epochs_.append(len(net.history))


def by_hand(net, parameters, X, epoch):
    """The loss of a batch by the formula, at recorded weights, one row at a time and from the last row on."""
    shares = np.cos((np.arange(net.n_timesteps + 1) / net.n_timesteps + 0.008) / 1.008 * np.pi / 2) ** 2
    shares = np.cumprod(1 - np.minimum(1 - shares[1:] / shares[:-1], 0.999))
    losses, draw = [], net.training_draw(epoch)
    network = Network.from_net(net)
    for x in reversed(X.unbind()):
        inputs, noise = network.prepare(x[None].numpy(), draws=[draw]).batch([0])
        t, noise = inputs["timestep"][0], noise[0]
        noisy = shares[int(t)] ** 0.5 * x + (1 - shares[int(t)]) ** 0.5 * noise
        output = torch.func.functional_call(net.module_, parameters, (noisy.float(), t))
        losses.append(float((output - noise).square().mean()))
    return np.mean(losses)


def test_replayed_draws_give_the_losses_of_the_training():
    watch, X = Watch(), rows()
    net = small_net(X, callbacks=[watch, TrajectoryRecorder(n_checkpoints=None)])
    checkpoints = Trajectory.from_net(net).checkpoints
    before = [c.parameters for c in checkpoints[:-1]]
    assert len(before) == len(watch.losses_) == 9
    replayed = [by_hand(net, *at) for at in zip(before, watch.batches_, watch.epochs_)]
    np.testing.assert_allclose(replayed, watch.losses_, rtol=1e-6)
    assert [c.outside["epochs"] for c in checkpoints[1:]] == watch.epochs_


def test_rows_draw_anew_in_every_epoch_whatever_their_batch():
    X = rows()
    net = small_net(X)
    network = Network.from_net(net)
    first, second = (network.prepare(X, draws=[net.training_draw(epoch)]) for epoch in (1, 2))
    whole, part = first.batch(slice(None)), first.batch([7, 3])
    torch.testing.assert_close(part[1], whole[1][[7, 3]], rtol=0, atol=0)
    assert not torch.equal(whole[1], second.batch(slice(None))[1])
    assert len(whole[1].unique()) == X.size  # no two rows share noise
    assert len(whole[0]["timestep"].unique()) > 3


def test_record_is_found_true():
    X = rows()
    for options in ({}, {"target": "v", "schedule": "linear"}, {"criterion": nn.L1Loss}):
        net = small_net(X, max_epochs=5, **options)
        (stage,) = Trajectory.from_net(net).verify(net, X).stages
        assert stage.verdict == "as recorded"
        np.testing.assert_allclose(stage.ratio, 1, atol=1e-4)
        np.testing.assert_allclose(stage.cosine, 1, atol=1e-4)


def test_training_depends_on_the_seed_alone():
    X = rows()
    once, again, other = (small_net(X, seed=seed) for seed in (0, 0, 1))
    for name, value in once.module_.state_dict().items():
        assert torch.equal(value, again.module_.state_dict()[name])
    assert once.draw_seed_ == again.draw_seed_ != other.draw_seed_
    assert pickle.loads(pickle.dumps(once)).draw_seed_ == once.draw_seed_


def test_clone_keeps_what_it_is_made_of():
    net = small_net(target="v", schedule="linear", ema_decay=0.9, n_timesteps=7, conditional=True)
    copy = clone(net)
    for name in ("target", "schedule", "ema_decay", "n_timesteps", "conditional"):
        assert getattr(copy, name) == getattr(net, name)


def test_validation_rows_are_measured_on_a_grid():
    X = rows(30)
    net = small_net(X, train_split=lambda dataset, y=None, **kwargs: _halves(dataset))
    network = Network.from_net(net)
    held = network.prepare_queries(X[15:], draws=network.measured_draws())
    network.calibrate(held)
    x, y = held.batch(slice(None))
    assert x["timestep"][0].tolist() == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]
    with torch.no_grad():
        loss = network.row_loss(network.forward(x), y, x).mean()
    np.testing.assert_allclose(net.history[-1, "valid_loss"], float(loss), rtol=1e-5)


def _halves(dataset):
    index = np.arange(len(dataset))
    return torch.utils.data.Subset(dataset, index[:15]), torch.utils.data.Subset(dataset, index[15:])


class Knows(nn.Module):
    """What the noise must be where all rows are normal with mean ``at`` and standard deviation ``width``."""

    def __init__(self, at=0.0, width=0.0, shares=None, target="noise"):
        super().__init__()
        self.at, self.width, self.target = at, width, target
        self.shares, self.scale = torch.as_tensor(shares), nn.Parameter(torch.ones(()))

    def forward(self, sample, timestep):
        share = self.shares[timestep].reshape(-1, 1).to(sample)
        off = sample - share.sqrt() * self.at
        noise = (1 - share).sqrt() / (share * self.width**2 + 1 - share) * off
        image = (sample - (1 - share).sqrt() * noise) / share.sqrt()
        return self.scale * (noise if self.target == "noise" else share.sqrt() * noise - (1 - share).sqrt() * image)


@pytest.mark.parametrize("target", ["noise", "v"])
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("method", ["ddpm", "ddim"])
def test_samples_of_a_perfect_denoiser(method, schedule, target):
    shares = DiffusionNet(Denoiser, n_timesteps=100, schedule=schedule)._shares()
    options = {"module": Knows, "module__shares": shares, "n_timesteps": 100, "schedule": schedule, "lr": 0.0}
    options.update(target=target, module__target=target, max_epochs=1)
    X = rows(8, 3)
    point = small_net(X, module__at=1.5, **options).sample(5, random_state=0, method=method)
    np.testing.assert_allclose(point, 1.5, atol=1e-3)
    wide = small_net(X, module__at=-0.5, module__width=0.7, **options)
    made = wide.sample(2000, random_state=0, method=method)
    np.testing.assert_allclose(made.mean(0), -0.5, atol=0.06)
    np.testing.assert_allclose(made.std(0), 0.7, atol=0.06)
    # Fewer steps: of all noise at once the image is the mean, and DDIM is exact for a point.
    few = small_net(X, module__at=1.5, **options).sample(5, random_state=0, method=method, n_steps=4)
    np.testing.assert_allclose(few, 1.5, atol=1e-3)


def test_sampling_repeats_and_moves_nothing():
    net = small_net(rows())
    net.module_.train()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    once, again = (net.sample(4, random_state=3) for _ in range(2))
    assert np.array_equal(once, again)
    assert (once.shape, once.dtype) == ((4, 4), np.float32)
    assert not np.array_equal(once, net.sample(4, random_state=4))
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])
    assert net.module_.training
    assert np.abs(net.sample(50, random_state=0, clip=(-0.2, 0.2), method="ddim")).max() <= 0.2 + 1e-6


def test_averaged_weights_are_those_of_the_formula_and_only_sample():
    X, decay = rows(), 0.8
    plain = small_net(X, recorder=TrajectoryRecorder(None))
    net = small_net(X, ema_decay=decay, recorder=TrajectoryRecorder(None))
    for name, value in plain.module_.state_dict().items():
        assert torch.equal(value, net.module_.state_dict()[name])  # training is the same
    checkpoints = Trajectory.from_net(net).checkpoints
    for name, average in net.ema_.items():
        expected = checkpoints[1].parameters[name].clone()
        for checkpoint in checkpoints[2:]:
            expected = decay * expected + (1 - decay) * checkpoint.parameters[name]
        torch.testing.assert_close(average, expected)
    assert not np.allclose(plain.sample(3, random_state=0), net.sample(3, random_state=0))
    net.module_.load_state_dict(net.ema_)
    vars(net).pop("ema_")
    sampled = net.sample(3, random_state=0)
    vars(net)["ema_"] = {name: p.detach() for name, p in net.module_.named_parameters()}
    np.testing.assert_allclose(net.sample(3, random_state=0), sampled, rtol=1e-6)


def test_classes_are_told():
    X, y = rows(), np.arange(12) % 3
    net = small_net(X, y, conditional=True, module__n_classes=3)
    one, other = (net.sample(4, y=[label] * 4, random_state=0) for label in (0, 1))
    assert not np.allclose(one, other)
    with pytest.raises(ValueError, match="expected y, the classes, of a net that is conditional"):
        net.sample(4)
    with pytest.raises(ValueError, match="expected no y"):
        small_net(X).sample(4, y=[0] * 4)


def test_what_is_wrong_is_said():
    X = rows()
    with pytest.raises(ValueError, match="expected schedule to be one of"):
        small_net(X, schedule="quadratic")
    with pytest.raises(ValueError, match="expected target to be one of"):
        small_net(X, target="image")
    with pytest.raises(ValueError, match="expected ema_decay to be a number between 0 and 1"):
        small_net(X, ema_decay=1.5)
    with pytest.raises(NotFittedError, match="not trained"):
        small_net().sample(1)
    net = small_net(X)
    with pytest.raises(TypeError, match=r"use sample\(\) for new rows"):
        net.predict(X)
    with pytest.raises(ValueError, match="expected method to be one of"):
        net.sample(1, method="euler")


def test_unets_of_diffusers_do():
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    X = np.random.default_rng(0).normal(size=(4, 1, 8, 8)).astype(np.float32)
    options = {
        "sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1, "block_out_channels": (8, 8),
        "norm_num_groups": 4, "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    net = small_net(X, module=diffusers.UNet2DModel, **{f"module__{name}": value for name, value in options.items()})
    assert net.sample(2, random_state=0).shape == (2, 1, 8, 8)
    assert GradientSimilarity().fit(net, X).transform(X).shape == (4, 4)


class Wrapped(Denoiser):
    """Returns as diffusers do: an object that holds the output."""

    def forward(self, sample, timestep):
        return SimpleNamespace(sample=super().forward(sample, timestep))


def test_a_wrapped_output_is_the_output():
    X = rows()
    one, other = small_net(X), small_net(X, module=Wrapped)
    np.testing.assert_array_equal(one.sample(2, random_state=0), other.sample(2, random_state=0))
    scores = [GradientSimilarity(random_state=0).fit(net, X).transform(X[:2]) for net in (one, other)]
    np.testing.assert_array_equal(*scores)
