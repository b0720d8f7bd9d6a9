"""Solutions for other weights of the rows: directly, by iterations from a factor nearby, by eigenvectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sklearn_source.curvature import _refit

N = 400


@pytest.fixture
def refit():
    """A refit with columns whose squares fall over four orders."""
    made = _refit.GaussNewtonRefit.__new__(_refit.GaussNewtonRefit)
    columns = torch.randn(N, N // 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    columns *= torch.logspace(1, -3, N // 2, dtype=torch.float64)
    made._K = columns @ columns.T
    made._factors, made._n_factors, made._spectrum = {}, 0, None
    return made


def off(refit, weight, n_sides):
    sides = torch.randn(N, n_sides, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = torch.linalg.solve(refit._K + torch.eye(N, dtype=torch.float64) / weight, sides)
    return float((refit._solve_all(weight, sides) - expected).norm() / expected.norm())


def test_weights_nearby_share_a_factor(refit):
    for weight in (1.0, 1.003, 1.2, 1.45, 0.8):
        assert off(refit, weight, 3) < 1e-9
    assert refit._n_factors == 1


def test_many_sides_and_weights_far_away_get_their_own(refit):
    assert max(off(refit, weight, 60) for weight in (1.0, 1.2, 5.0)) < 1e-9
    assert refit._n_factors == 3
    assert len(refit._factors) == 2


def test_where_there_are_many_weights_eigenvectors_serve_them(refit, monkeypatch):
    monkeypatch.setattr(_refit, "_MOST_FACTORS", 2)
    assert max(off(refit, weight, 60) for weight in (1.0, 2.0, 4.0, 8.0)) < 1e-9
    assert refit._n_factors == 2
    assert refit._spectrum is not None


@pytest.mark.parametrize("other", [0.0, 0.25, 2.0, 5.0])
def test_rows_of_another_weight_are_solved_for_from_the_usual_one(refit, other):
    """Against a dense solve on the columns that are left; the factor is that of the usual weight."""
    w = np.full(N, 1.1)
    w[[3, 50, 51, 399]] = other
    kept = torch.as_tensor(w > 0)
    right = torch.randn(N, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = torch.zeros_like(right)
    matrix = refit._K[kept][:, kept] + torch.diag(torch.as_tensor(1 / w[w > 0]))
    expected[kept] = torch.linalg.solve(matrix, right[kept])
    found = refit._solve(w, kept, right)
    assert float((found - expected).norm() / expected.norm()) < 1e-9
    assert list(refit._factors) == [1.1]
