"""Conjugate gradients and Gauss-Newton products against dense matrices."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_source.curvature import conjugate_gradient, gauss_newton_product
from tests.curvature._problems import SETTINGS, TOLERANCE, relative
from tests.reference import ggn


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize("batch_size", [2, 100])
def test_gauss_newton_products(name, dtype, batch_size, problem):
    p = problem(name, dtype)
    index = torch.tensor([8, 0, 1, 5, 6]).numpy()
    H = ggn(p.module64, p.params64(1), p.loss_fn, p.X[index], p.y[index], p.names)
    V = torch.randn(11, p.layout.size, generator=torch.Generator().manual_seed(0)).double()  # more than go at once
    p.use(p.checkpoints[1])
    actual = gauss_newton_product(p.network, p.engine, p.rows, index, p.to_blocks(V), batch_size)
    assert relative(p.from_blocks(actual), V @ H) < TOLERANCE[dtype]
    assert all(v.dtype == dtype for v in actual)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 5), st.integers(0, 2**31), st.booleans())
def test_conjugate_gradients_solve(first, second, n, seed, preconditioned):
    generator = torch.Generator().manual_seed(seed)
    size = first + second
    root = torch.randn(size, size, generator=generator, dtype=torch.float64)
    A = root @ root.T + 0.1 * torch.eye(size)
    rhs = torch.randn(n, size, generator=generator, dtype=torch.float64) * torch.logspace(-6, 6, n).double()[:, None]
    rhs[-1] *= n > 1  # a right-hand side of zero is solved by zero

    def split(v):
        return [v[:, :first], v[:, first:].reshape(n, second, 1)]

    def join(parts):
        return torch.cat([x.flatten(1) for x in parts], 1)

    D = torch.diag(A) if preconditioned else torch.ones(size).double()
    x, _, n_iter = conjugate_gradient(
        lambda v: split(join(v) @ A), split(rhs), lambda v: split(join(v) / D), tol=1e-10, max_iter=200
    )
    residual = (join(x) @ A - rhs).norm(dim=1)
    assert (residual <= 1e-9 * rhs.norm(dim=1)).all()
    assert n_iter <= 200
    one, _, _ = conjugate_gradient(
        lambda v: [v[0] @ A], [rhs[:1]], lambda v: [v[0] / D], tol=1e-10, max_iter=200
    )  # fmt: skip
    torch.testing.assert_close(one[0], join(x)[:1], rtol=1e-6, atol=1e-6 * float(rhs[:1].norm()))


def test_a_perfect_preconditioner_needs_one_step_and_the_limit_is_kept():
    A = torch.diag(torch.tensor([1.0, 10.0, 1000.0])).double()
    rhs = [torch.ones(2, 3).double()]
    x, _, n_iter = conjugate_gradient(lambda v: [v[0] @ A], rhs, lambda v: [v[0] @ A.inverse()], tol=1e-12, max_iter=50)
    assert n_iter == 1
    torch.testing.assert_close(x[0], rhs[0] @ A.inverse())
    _, residual, n_iter = conjugate_gradient(lambda v: [v[0] @ A], rhs, lambda v: v, tol=1e-12, max_iter=2)
    assert n_iter == 2
    assert residual > 1e-12
