"""Solutions for other weights of the rows: directly, by iterations from a factor nearby, by eigenvectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sklearn_source.curvature import GaussNewtonRefit, _sketch_bias, _weighted_gram

N = 400


@pytest.fixture
def gram():
    """The Gram matrix of columns whose squares fall over four orders."""
    columns = torch.randn(N, N // 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    columns *= torch.logspace(1, -3, N // 2, dtype=torch.float64)
    return _weighted_gram.WeightedGram(columns @ columns.T)


def off(gram, weight, n_sides):
    sides = torch.randn(N, n_sides, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = torch.linalg.solve(gram.K + torch.eye(N, dtype=torch.float64) / weight, sides)
    return float((gram.solve_all(weight, sides) - expected).norm() / expected.norm())


def off_alone(gram, w):
    """How far :meth:`WeightedGram.solve` is from a dense solution on the columns kept."""
    right = torch.randn(N, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    kept, expected = torch.as_tensor(w > 0), torch.zeros_like(right)
    matrix = gram.K[kept][:, kept] + torch.diag(1 / torch.as_tensor(w)[kept])
    expected[kept] = torch.linalg.solve(matrix, right[kept])
    return float((gram.solve(w, right) - expected).norm() / expected.norm())


@pytest.mark.parametrize("n_others", [0, 2, 60])
@pytest.mark.parametrize("other", [0.0, 0.4, 1.0, 3.0])
def test_weights_nearby_share_a_factor(gram, n_others, other):
    """Groups of up to a sixth of the columns, removed or of another weight: that of the factor among them."""
    gram.solve_all(1.0, torch.eye(N, 1, dtype=torch.float64))
    for usual in (1.0, 1.003, 1.2, 1.45, 0.8):
        w = np.full(N, usual)
        w[3 : 3 + n_others] = other
        assert off_alone(gram, w) < 1e-9
    assert gram._n_factors == 1


def test_weights_far_away_and_many_of_their_own_get_another(gram):
    assert max(off(gram, weight, 60) for weight in (1.0, 1.2, 5.0)) < 1e-9
    assert gram._n_factors == 3
    assert len(gram._factors) == 2
    assert off_alone(gram, np.full(N, 12.0)) < 1e-9
    assert gram._n_factors == 4
    assert off_alone(gram, np.repeat([0.0, 2.0], N // 2)) < 1e-9  # of its own columns, for one side alone
    assert gram._n_factors == 4


def test_where_there_are_many_weights_eigenvectors_serve_them(gram, monkeypatch):
    monkeypatch.setattr(_weighted_gram, "_MOST_FACTORS", 2)
    assert max(off(gram, weight, 60) for weight in (1.0, 2.0, 4.0, 8.0)) < 1e-9
    assert gram._n_factors == 2
    assert gram._spectrum is not None


def made_of(columns, rows):
    """A refit with such columns, all by chance, D = I, and no network."""
    made = GaussNewtonRefit.__new__(GaussNewtonRefit)
    made._scale, made._by_chance, made._rows = [1.0], np.full(len(columns), True), rows
    made._bias = _sketch_bias.SketchBias(_weighted_gram.WeightedGram(columns @ columns.T), made._by_chance)
    made.push = lambda vectors: vectors[0].flatten(1) @ columns.T
    return made


class Sampled:
    """Forty rows whose curvature has a hundred directions above D, known by columns that are drawn."""

    def __init__(self, n_draws, weights, n_rows=40, n_parameters=200, rank=12):
        generator = torch.Generator().manual_seed(0)

        def normal(*shape):
            return torch.randn(*shape, dtype=torch.float64, generator=generator)

        self.roots = normal(n_rows, rank, n_parameters) + normal(rank, n_parameters)
        self.roots *= torch.logspace(0.6, -0.6, n_parameters, dtype=torch.float64) * (10 / rank) ** 0.5
        slopes = torch.einsum("nrp,nr->np", self.roots, normal(n_rows, rank))
        self.weights = weights
        self.changes = torch.as_tensor(weights - 1.0) @ slopes / n_rows
        self.queries = slopes[:8] + 0.3 * normal(8, n_parameters)
        draws = [torch.einsum("nrp,nr->np", self.roots, normal(n_rows, rank)) for _ in range(n_draws)]
        self.columns, self.rows = torch.cat(draws) / (n_draws * n_rows) ** 0.5, np.tile(np.arange(n_rows), n_draws)

    def solved(self, matrices):
        """``u^T (H_w + I)^-1 v`` by dense matrices H_w, one per group."""
        one = torch.eye(len(self.columns[0]), dtype=torch.float64)
        columns = [self.queries @ torch.linalg.solve(H + one, v) for H, v in zip(matrices, self.changes)]
        return torch.stack(columns, dim=1)

    def exact(self):
        of_rows = torch.einsum("nrp,nrq->npq", self.roots, self.roots) / len(self.roots)
        return self.solved(torch.einsum("gn,npq->gpq", torch.as_tensor(self.weights), of_rows))

    def plain(self):
        """By the columns as they are."""
        return self.solved(
            [self.columns.T @ (torch.as_tensor(w[self.rows])[:, None] * self.columns) for w in self.weights]
        )

    def refitted(self):
        refit = made_of(self.columns, self.rows)
        solved = refit.solutions(refit.push([self.changes]), self.weights)
        return refit.forms(refit.push([self.queries]), [self.queries], [self.changes], *solved), refit


def halves(n_rows, n_groups):
    orders = [np.random.default_rng(g).permutation(n_rows) for g in range(n_groups)]
    return np.array([np.where(order < n_rows // 2, 2.0, 0.0) for order in orders])


@pytest.mark.parametrize(
    ("n_draws", "few", "slope", "gain"),
    [(6, False, 2.5, 3.0), (12, False, 1.6, 2.0), (6, True, 1.6, 2.0), (12, True, 1.3, 1.5)],
)
def test_columns_by_chance_give_solutions_of_the_right_size(n_draws, few, slope, gain):
    """Halves of the rows removed and a few of them. As they are, columns give twice to five times too much."""
    weights = np.ones((12, 40))
    if few:
        for g, own in enumerate(weights):
            own[3 * g : 3 * g + 3] = 0.0
    sampled = Sampled(n_draws, weights if few else halves(40, 12))
    exact, plain, (found, refit) = sampled.exact(), sampled.plain(), sampled.refitted()
    assert refit.has_enough_columns
    assert 1 / slope < (found * exact).sum() / found.square().sum() < slope
    assert (plain - exact).norm() > gain * (found - exact).norm()


def test_where_all_columns_are_there_nothing_is_changed():
    sampled = Sampled(3, halves(40, 4))
    refit = made_of(sampled.columns, sampled.rows)
    refit._by_chance[:] = False
    refit._bias = _sketch_bias.SketchBias(refit._bias.gram, refit._by_chance)
    solved = refit.solutions(refit.push([sampled.changes]), sampled.weights)
    found = refit.forms(refit.push([sampled.queries]), [sampled.queries], [sampled.changes], *solved)
    torch.testing.assert_close(found, sampled.plain(), rtol=1e-9, atol=1e-12)


def test_a_sample_too_small_is_no_basis():
    refit = made_of(Sampled(1, halves(40, 1)).columns, np.arange(40))
    assert not refit.has_enough_columns
