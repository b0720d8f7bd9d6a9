"""Methods on a loss that draws, against dense float64 formulas in which every example stands by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sklearn_source import (
    TRAK,
    GradientSimilarity,
    InfluenceFunctions,
    SnapshotInfluence,
    SourceAttribution,
    TracIn,
    Trajectory,
)
from sklearn_source.curvature import EKFAC, Diagonal, ExactGaussNewton
from sklearn_source.diffusion import DenoisingLoss
from sklearn_source.network import Network
from sklearn_source.stochastic import fresh_draws
from tests._diffusion_nets import Denoiser, rows, small_net
from tests.reference import ReferenceSegment, segment_second_order, source_scores

LR, N_DRAWS = 0.1, 3
EXACT = ExactGaussNewton(fisher="exact")
MEASUREMENTS = {
    "grid": ("auto", DenoisingLoss()),
    "range": (DenoisingLoss(timesteps=(10, 20), n_timesteps=2, n_noise=3),) * 2,
    "one": (DenoisingLoss(timesteps=4),) * 2,
    "output": (DenoisingLoss(loss="output", n_timesteps=4),) * 2,
}


class Doubled(Denoiser):
    def __init__(self, **options):
        super().__init__(**options)
        self.double()


class Dense:
    """A trained net, and all gradients and curvatures of it, one example at a time by autograd."""

    def __init__(self):
        self.X, self.queries = rows(8, dtype=np.float64), rows(2, seed=1, dtype=np.float64)
        self.net = small_net(self.X, module=Doubled, lr=LR, max_epochs=4)
        self.checkpoints = Trajectory.from_net(self.net).checkpoints
        self.final = self.checkpoints[-1].parameters
        self.network = Network.from_net(self.net)

    def examples(self, x, draws):
        """(noisy row, timestep, target) of every draw."""
        inputs, target = self.network.prepare(x[None], draws=draws).batch([0])
        return zip(inputs["sample"][0], inputs["timestep"][0], target[0])

    def output(self, parameters, noisy, timestep):
        leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
        return torch.func.functional_call(self.net.module_, leaves, (noisy[None], timestep[None]))[0], leaves

    def gradient(self, parameters, x, draws, of):
        """Of ``of(output, target)``, a mean over draws."""
        parts = []
        for noisy, timestep, target in self.examples(x, draws):
            output, leaves = self.output(parameters, noisy, timestep)
            parts.append(flat(torch.autograd.grad(of(output, target), list(leaves.values()))))
        return torch.stack(parts).mean(0)

    def losses(self, parameters, draws):
        return torch.stack([self.gradient(parameters, x, draws, squared) for x in self.X])

    def measured(self, parameters, measure):
        of = (lambda o, t: o.square().mean()) if measure.loss == "output" else (lambda o, t: -squared(o, t))
        draws = measure.draws(self.net)
        return torch.stack([self.gradient(parameters, q, draws, of) for q in self.queries])

    def curvature(self, parameters, draws):
        """``1/(N D) sum 2/C J^T J``."""
        total = 0.0
        for x in self.X:
            for noisy, timestep, _ in self.examples(x, draws):
                output, leaves = self.output(parameters, noisy, timestep)
                for one in output:
                    gradient = flat(torch.autograd.grad(one, list(leaves.values()), retain_graph=True))
                    total = total + 2 / len(output) * torch.outer(gradient, gradient)
        return total / (len(self.X) * len(draws))


def squared(output, target):
    return (output - target).square().mean()


def flat(gradients):
    return torch.cat([g.flatten() for g in gradients])


@pytest.fixture(scope="module")
def dense():
    return Dense()


def fitted(method, dense):
    method = method.set_params(n_draws=N_DRAWS, random_state=0).fit(dense.net, dense.X)
    assert method._rows.draws == tuple(fresh_draws(method._seed, N_DRAWS))
    return method, list(method._rows.draws)


def close(found, expected, rtol=1e-5):
    expected = np.asarray(expected)
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_influence_functions(name, dense):
    given, measure = MEASUREMENTS[name]
    est, draws = fitted(InfluenceFunctions(curvature=EXACT, damping=0.05, measurement=given), dense)
    H = dense.curvature(dense.final, draws) + 0.05 * torch.eye(est._gradients.n_parameters)
    expected = -dense.measured(dense.final, measure) @ torch.linalg.solve(H, dense.losses(dense.final, draws).T)
    close(est.transform(dense.queries), expected / len(dense.X))


def test_source(dense):
    est, draws = fitted(SourceAttribution(n_segments=1, curvature=EXACT), dense)
    weights, steps = _trapezoid(dense.checkpoints)
    parameters = [checkpoint.parameters for checkpoint in dense.checkpoints]
    H = sum(w * dense.curvature(p, draws) for w, p in zip(weights, parameters))
    gradients = [dense.losses(p, draws) for p in parameters]
    second = segment_second_order([LR] * int(steps), 0, int(steps))
    segment = ReferenceSegment(LR * steps, 0.0, list(weights), gradients, H, second=second)
    close(est.transform(dense.queries), source_scores([segment], dense.measured(dense.final, DenoisingLoss())))


def test_tracin(dense):
    est, draws = fitted(TracIn(), dense)
    weights, steps = _trapezoid(dense.checkpoints)
    expected = sum(
        -w * LR * steps / len(dense.X)
        * dense.measured(c.parameters, DenoisingLoss()) @ dense.losses(c.parameters, draws).T
        for w, c in zip(weights, dense.checkpoints)
    )  # fmt: skip
    close(est.transform(dense.queries), expected)


def test_snapshots(dense):
    est, draws = fitted(SnapshotInfluence(curvature=EXACT), dense)
    parts = []
    for checkpoint in dense.checkpoints[1:]:
        H = dense.curvature(checkpoint.parameters, draws)
        H = H + torch.eye(len(H)) / (LR * checkpoint.step)
        solved = torch.linalg.solve(H, dense.losses(checkpoint.parameters, draws).T)
        parts.append(-dense.measured(checkpoint.parameters, DenoisingLoss()) @ solved / len(dense.X))
    close(est.transform(dense.queries), torch.stack(parts).mean(0))


def test_similarity(dense):
    est, draws = fitted(GradientSimilarity(), dense)
    queries, losses = -dense.measured(dense.final, DenoisingLoss()), dense.losses(dense.final, draws)
    close(est.transform(dense.queries), torch.nn.functional.cosine_similarity(queries[:, None], losses[None], dim=2))


def test_trak_of_the_output_without_residuals(dense):
    """D-TRAK: kernel regression in gradients of the mean square of the output."""
    measure = DenoisingLoss(loss="output", n_timesteps=4)
    est, draws = fitted(TRAK(n_components=None, regularization=1e-3, measurement=measure), dense)
    Phi = torch.stack([dense.gradient(dense.final, x, draws, lambda o, t: o.square().mean()) for x in dense.X])
    kernel = Phi.T @ Phi + 1e-3 * torch.eye(Phi.shape[1])
    expected = dense.measured(dense.final, measure) @ torch.linalg.solve(kernel, Phi.T)
    close(est.with_residuals(np.ones(len(dense.X))).transform(dense.queries), expected, 1e-4)


def test_sampled_curvature_is_unbiased(dense):
    """With signs drawn for every output of every example; and of the diagonal alone, exactly."""
    est, draws = fitted(InfluenceFunctions(curvature=Diagonal(fisher="exact", coupling=None), damping=0.05), dense)
    diagonal = dense.curvature(dense.final, draws).diagonal() + 0.05
    losses = dense.losses(dense.final, draws)
    expected = -(dense.measured(dense.final, DenoisingLoss()) / diagonal) @ losses.T / len(dense.X)
    close(est.transform(dense.queries), expected)
    for kind in (Diagonal, EKFAC):
        scores = [
            fitted(InfluenceFunctions(curvature=kind(coupling=None, **options), damping=0.05), dense)[0].transform(
                dense.queries
            )
            for options in ({"fisher": "exact"}, {"fisher": "sampled", "n_samples": 300})
        ]
        assert np.abs(scores[1] - scores[0]).max() < 0.1 * np.abs(scores[0]).max()


def test_more_draws_come_closer_to_the_mean_of_many(dense):
    def scores(n_draws, seed):
        est = GradientSimilarity(metric="dot", n_draws=n_draws, random_state=seed)
        return est.fit(dense.net, dense.X).transform(dense.queries)

    many = scores(300, 9)
    few, more = (np.square(scores(n_draws, 0) - many).mean() for n_draws in (1, 30))
    assert more < few / 8


def _trapezoid(checkpoints):
    """Weights of the checkpoints, summing to one, and the number of steps."""
    steps = np.array([c.step for c in checkpoints], dtype=float)
    widths = np.diff(steps)
    weights = (np.append(widths, 0) + np.append(0, widths)) / 2
    return weights / weights.sum(), steps[-1]
