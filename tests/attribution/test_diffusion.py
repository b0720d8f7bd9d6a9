"""Diffusion-TracIn and Diffusion-ReTrac against loops of autograd in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sklearn_source import DiffusionReTrac, DiffusionTracIn, TracIn, Trajectory
from sklearn_source.diffusion import DenoisingLoss
from sklearn_source.network import Network
from sklearn_source.stochastic import Draw
from tests._diffusion_nets import Denoiser, rows, small_net
from tests._nets import make_net

LR = 0.1


class Doubled(Denoiser):
    def __init__(self, **options):
        super().__init__(**options)
        self.double()


@pytest.fixture(scope="module")
def run():
    X = rows(6, dtype=np.float64)
    return small_net(X, module=Doubled, lr=LR), X, rows(2, seed=1, dtype=np.float64)


def gradient(net, parameters, x, draws):
    """Of the loss of one row, a mean over some draws, by autograd on the module."""
    network = Network.from_net(net)
    inputs, target = network.prepare(x[None], draws=draws).batch([0])
    leaves = {name: value.double().clone().requires_grad_() for name, value in parameters.items()}
    output = torch.func.functional_call(net.module_, leaves, (inputs["sample"][0], inputs["timestep"][0]))
    loss = (output - target[0]).square().mean(1).mean()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(leaves.values()))])


def shares(steps):
    """Of the trapezoid rule, times the rate."""
    widths = np.diff(steps)
    return LR * (np.append(widths, 0) + np.append(0, widths)) / 2


def unit(vector):
    return vector / vector.norm()


def by_hand(net, X, queries, timesteps, n_noise, of_rows, normalized):
    checkpoints = Trajectory.from_net(net).checkpoints
    grid = [
        [Draw(0, 2**32 + i * n_noise + k, t) for k in range(n_noise)] for i, t in enumerate(timesteps)
    ]  # a timestep at a time
    u = unit if normalized else (lambda vector: vector)
    total = 0.0
    for checkpoint, h in zip(checkpoints, shares([c.step for c in checkpoints])):
        drawn = [[net.training_draw(checkpoint.outside["epochs"])]] if of_rows == "drawn" else grid
        at = net, checkpoint.parameters
        of_queries = torch.stack([sum(u(-gradient(*at, q, d)) for d in grid) / len(grid) for q in queries])
        of_training = torch.stack([sum(u(gradient(*at, x, d)) for d in drawn) / len(drawn) for x in X])
        total = total - h / len(X) * of_queries @ of_training.T
    return total.numpy()


@pytest.mark.parametrize("of_rows", ["drawn", "grid"])
@pytest.mark.parametrize("cls", [DiffusionTracIn, DiffusionReTrac])
def test_scores_are_those_of_the_formula(cls, of_rows, run):
    net, X, queries = run
    expected = by_hand(net, X, queries, [3, 10, 16], 2, of_rows, cls is DiffusionReTrac)
    est = cls(rows=of_rows, n_timesteps=3, n_noise=2).fit(net, X)
    np.testing.assert_allclose(est.transform(queries), expected, rtol=1e-5, atol=1e-7 * np.abs(expected).max())
    measured = cls(rows=of_rows, measurement=DenoisingLoss(n_timesteps=3, n_noise=2)).fit(net, X).transform(queries)
    np.testing.assert_allclose(measured, expected, rtol=1e-5, atol=1e-7 * np.abs(expected).max())
    own = by_hand(net, X, X[:2], [3, 10, 16], 2, of_rows, cls is DiffusionReTrac).diagonal()
    np.testing.assert_allclose(est.self_influence()[:2], own, rtol=1e-5)


@pytest.mark.parametrize("cls", [DiffusionTracIn, DiffusionReTrac])
def test_batches_and_calls_do_not_matter(cls, run):
    net, X, queries = run
    state = torch.get_rng_state()
    scores = cls(n_timesteps=3).fit(net, X).transform(queries)
    est = cls(n_timesteps=3, batch_size=2).fit(net, X)
    assert np.array_equal(est.transform(queries), est.transform(queries))
    np.testing.assert_allclose(est.transform(queries), scores, rtol=1e-5)
    np.testing.assert_allclose(est.transform(queries[::-1]), scores[::-1], rtol=1e-5)
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_allclose(cls(n_timesteps=3).fit(net, X[order]).transform(queries), scores[:, order], rtol=1e-5)
    assert torch.equal(state, torch.get_rng_state())


def test_the_retrained_bare_net_and_samples_as_queries(run):
    net, X, _ = run
    bare = small_net(module=Doubled, callbacks=None)
    est = DiffusionReTrac(bare, n_timesteps=2, random_state=0).fit(X)
    assert est.transform(est.net_.sample(2, random_state=0)).shape == (2, 6)
    assert np.isfinite(est.fit_transform(X)).all()


def test_absolute_error_trained_on_is_what_is_measured():
    X = rows()
    net = small_net(X, criterion=torch.nn.L1Loss)
    own = DiffusionTracIn(n_timesteps=5).fit(net, X).transform(X[:2])
    named = DiffusionTracIn(measurement=DenoisingLoss(5, loss="absolute")).fit(net, X).transform(X[:2])
    np.testing.assert_allclose(own, named, rtol=1e-4, atol=1e-9)
    other = DiffusionTracIn(measurement=DenoisingLoss(5)).fit(net, X).transform(X[:2])
    assert not np.allclose(own, other, rtol=1e-2)


def test_a_net_that_draws_nothing_is_its_own_example():
    net = make_net()
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 4)).astype(np.float32), rng.normal(size=(20, 1)).astype(np.float32)
    net.fit(X, y)
    scores = [cls().fit(net, X, y).transform(X[:3]) for cls in (TracIn, DiffusionTracIn)]
    np.testing.assert_array_equal(*scores)
    with pytest.raises(ValueError, match="n_timesteps=5 is of a grid of timesteps, but the loss of this"):
        DiffusionTracIn(n_timesteps=5).fit(net, X, y).transform(X[:3])


def test_what_cannot_be_is_said(run):
    net, X, queries = run
    with pytest.raises(ValueError, match="n_noise would be those of the grid that measurement=DenoisingLoss"):
        DiffusionTracIn(n_noise=2, measurement=DenoisingLoss()).fit(net, X).transform(queries)
    recorded = Trajectory.from_net(net)
    states = [{**c.parameters} for c in recorded.checkpoints]
    steps = [c.step for c in recorded.checkpoints]
    made = Trajectory.from_checkpoints(states, steps, LR, module=net.module_, n_rows=len(X), X=X)
    with pytest.raises(ValueError, match="rows='drawn' needs to know the epoch of every checkpoint"):
        DiffusionTracIn(trajectory=made).fit(net, X)
    grid = DiffusionTracIn(rows="grid", n_timesteps=3, trajectory=made)
    from_states = grid.fit(net, X).transform(queries)
    np.testing.assert_allclose(from_states, grid.set_params(trajectory=None).fit(net, X).transform(queries), rtol=1e-5)


@pytest.mark.parametrize("cls", [DiffusionTracIn, DiffusionReTrac])
@pytest.mark.parametrize("of_rows", ["drawn", "grid"])
def test_stored_gradients_are_of_what_the_rows_drew(cls, of_rows, run, tmp_path):
    net, X = run[:2]
    est = cls(n_timesteps=2, rows=of_rows, random_state=0).fit(net, X)
    expected = est.transform(X[:3])
    found = est.store_gradients(tmp_path / "store", tol=None).transform(X[:3])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
    if of_rows == "grid":
        with pytest.raises(FileExistsError, match="differ"):
            cls(n_timesteps=3, rows=of_rows, random_state=0).fit(net, X).store_gradients(tmp_path / "store", tol=None)
