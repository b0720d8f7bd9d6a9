"""What holds for every ``phi(H)``, on curvatures made of drawn bases and eigenvalues."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_source.curvature import Basis, EigenCurvature, GramCurvature, decode_queries_or_rotate_rows
from sklearn_source.gradients.algebra import Dense, Factored
from tests.curvature._problems import relative
from tests.reference import phi_dense

sizes = st.integers(1, 4)
rates = st.floats(0.0, 5.0)


def rotations(normal, groups, n):
    return torch.linalg.qr(normal(groups, n, n)).Q


@st.composite
def curvatures(draw, n=1):
    """Some curvatures over the same blocks, their shapes, and a source of vectors."""
    shapes = [(draw(st.integers(1, 2)), draw(sizes), draw(sizes)) for _ in range(draw(st.integers(1, 3)))]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def basis(groups, out, inp):
        left = rotations(normal, groups, out) if draw(st.booleans()) else None
        return Basis(left, rotations(normal, groups, inp) if draw(st.booleans()) else None)

    made = [EigenCurvature([basis(*s) for s in shapes], [normal(*s).square() for s in shapes]) for _ in range(n)]
    return made, shapes, normal


def vectors(normal, shapes, n=3):
    return [normal(n, *shape) for shape in shapes]


def matrix(curvature, i, values):
    """(size, size) per group of block i, by explicit Kronecker products on row-major matrices: (groups, k, k)."""
    groups, out, inp = values.shape
    basis, actual = curvature.bases[i], []
    for g in range(groups):
        left = torch.eye(out).double() if basis.left is None else basis.left[g]
        right = torch.eye(inp).double() if basis.right is None else basis.right[g]
        Q = torch.kron(left.contiguous(), right.contiguous())
        actual.append(Q @ torch.diag(values[g].flatten()) @ Q.T)
    return torch.stack(actual)


@settings(max_examples=40, deadline=None)
@given(curvatures(), rates, rates)
def test_phi_of_a_curvature(made, s, t):
    (curvature,), shapes, normal = made
    v, w = vectors(normal, shapes), vectors(normal, shapes)

    def decay(values, block):
        return torch.exp(-s * values)

    def damp(values, block):
        return 1 / (values + t + 0.1 * (block + 1))

    def both(values, block):
        return decay(values, block) * damp(values, block)

    one = curvature.apply(decay, v)
    total = curvature.apply(decay, [a - 2 * b for a, b in zip(v, w)])
    for i, (a, b, c) in enumerate(zip(total, one, curvature.apply(decay, w))):
        torch.testing.assert_close(a, b - 2 * c)  # linear
        groups, out, inp = shapes[i]
        explicit = torch.einsum(
            "gkl,ngl->ngk", matrix(curvature, i, decay(curvature.eigenvalues[i], i)), v[i].flatten(2)
        )
        torch.testing.assert_close(b.flatten(2), explicit)
    for a, b, c in zip(
        curvature.apply(damp, one), curvature.apply(decay, curvature.apply(damp, v)), curvature.apply(both, v)
    ):
        torch.testing.assert_close(a, b)  # functions of one matrix commute
        torch.testing.assert_close(a, c)
    for a, b in zip(curvature.apply(lambda values, i: torch.ones_like(values), v), v):
        torch.testing.assert_close(a, b)
    for a, b in zip(curvature.decode(curvature.encode(v)), v):
        torch.testing.assert_close(a, b)
    symmetric = [(curvature.apply(damp, v), w), (curvature.apply(damp, w), v)]
    left, right = ([(a * b).sum() for a, b in zip(*pair)] for pair in symmetric)
    torch.testing.assert_close(left, right)


@settings(max_examples=30, deadline=None)
@given(curvatures(n=2), st.lists(st.floats(0.01, 3), min_size=3, max_size=3))
def test_changing_bases_and_metrics(made, metric):
    (old, new), shapes, normal = made
    v = vectors(normal, shapes)
    for a, b in zip(old.change(new, old.encode(v)), new.encode(v)):
        torch.testing.assert_close(a, b)
    metric = metric[: len(shapes)]
    scaled = old.in_metric(metric)
    for i, p in enumerate(metric):
        M = p**0.5 * matrix(old, i, old.eigenvalues[i]) * p**0.5
        torch.testing.assert_close(matrix(scaled, i, scaled.eigenvalues[i]), M)
    assert scaled.mean_eigenvalue(0) == pytest.approx(metric[0] * float(old.eigenvalues[0].mean()))


@settings(max_examples=40, deadline=None)
@given(curvatures(), st.integers(1, 5), st.integers(1, 2000), st.booleans())
def test_queries_and_rows_meet_in_either_place(made, n_checkpoints, n_rows, dense):
    """The inner products do not depend on who is rotated."""
    (curvature,), shapes, normal = made
    v = vectors(normal, shapes)
    rows = []
    for groups, out, inp in shapes:
        gradient = Factored(normal(4, groups, 2, inp), normal(4, groups, 2, out))
        rows.append(Dense(gradient.matrix()) if dense else gradient)
    values, bases = decode_queries_or_rotate_rows(
        curvature, curvature.encode(v), rows, n_rows=n_rows, n_checkpoints=n_checkpoints
    )  # fmt: skip
    for u, value, basis, gradient in zip(v, values, bases, rows):
        met = gradient if basis is None else gradient.rotate_factors(basis.left, basis.right)
        expected = torch.einsum("qgoi,bgoi->qb", u, gradient.matrix())
        torch.testing.assert_close(value @ met.matrix().flatten(1).T, expected)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 8), st.lists(st.tuples(sizes, sizes, sizes), min_size=1, max_size=3), st.integers(0, 2**31), rates
)
def test_gram_curvature_is_the_dense_matrix(m, shapes, seed, rate):
    """Wide and tall roots, rank lost by repeated rows, with and without a metric."""
    generator = torch.Generator().manual_seed(seed)
    size = sum(g * o * i for g, o, i in shapes)
    root = torch.randn(m, size, generator=generator, dtype=torch.float64)
    root = torch.cat([root, root[:1]])
    metric = [0.5 + i for i in range(len(shapes))]
    scale = torch.cat([torch.full((g * o * i,), p).double() for (g, o, i), p in zip(shapes, metric)])
    curvature = GramCurvature(root, shapes, torch.float64)
    v = torch.randn(3, size, generator=generator, dtype=torch.float64)
    parts = [x.reshape(3, *shape) for x, shape in zip(v.split([g * o * i for g, o, i in shapes], 1), shapes)]
    for current, R in ((curvature, root), (curvature.in_metric(metric), root * scale.sqrt())):
        H = R.T @ R
        for phi in (lambda s: s, lambda s: torch.exp(-rate * s), lambda s: 1 / (s + 0.1), torch.ones_like):
            actual = torch.cat([x.flatten(1) for x in current.apply(lambda s, i, phi=phi: phi(s), parts)], 1)
            torch.testing.assert_close(actual, v @ phi_dense(H, phi), rtol=1e-8, atol=1e-8)
        (spectrum,) = current.spectrum()
        torch.testing.assert_close(spectrum.sort().values, torch.linalg.eigvalsh(H).clamp_min(0), rtol=1e-8, atol=1e-8)


def test_gram_curvature_refuses_a_function_that_differs_by_block():
    curvature = GramCurvature(torch.randn(3, 5).double(), [(1, 2, 2), (1, 1, 1)], torch.float64)
    parts = [torch.randn(1, 1, 2, 2).double(), torch.randn(1, 1, 1, 1).double()]
    with pytest.raises(ValueError, match="couples all parameters"):
        curvature.apply(lambda values, block: values + block, parts)


def test_exact_curvature_refuses_large_problems(problem, monkeypatch):
    from sklearn_source.curvature import _exact_gauss_newton

    monkeypatch.setattr(_exact_gauss_newton, "MAX_ROOT_ROWS", 20)
    with pytest.raises(ValueError, match="small problems"):
        problem("mlp", torch.float64).fit("exact")


@pytest.mark.parametrize("width", [4, 5])
def test_a_side_too_wide_keeps_its_own_coordinates(width, problem, monkeypatch):
    """EK-FAC's eigenvalues are the diagonal of H in whatever basis is used: here sides above ``width`` have none."""
    from sklearn_source.curvature import _covariances

    p = problem("mlp", torch.float64)
    exact = p.dense(p.fit("exact"))
    monkeypatch.setattr(_covariances, "MAX_BASIS", width)
    curvature = p.fit("ekfac")
    layers = {block.name: i for i, block in enumerate(p.engine.blocks)}
    first, last = curvature.bases[layers["0"]], curvature.bases[layers["3"]]
    assert first.left is None  # six outputs
    assert (first.right is None) == (width == 4)  # five inputs with the bias
    assert last.right is None
    assert last.left is not None
    actual = p.dense(curvature)
    eye = torch.eye(p.layout.size, dtype=torch.float64)
    Q = p.from_blocks(curvature.decode(p.to_blocks(eye)))  # rows: the directions of the basis
    diagonal = torch.einsum("ki,ij,kj->k", Q, exact, Q)
    assert relative(actual, Q.T @ torch.diag(diagonal) @ Q) < 1e-10
    with pytest.raises(ValueError, match="side wider than"):
        p.fit("kfac")


def test_what_is_not_finite_is_named(problem):
    from tests.curvature._problems import Problem

    p = Problem("mlp", torch.float64)
    p.checkpoints[0].parameters["3.bias"][1] = torch.inf
    for kind in ("ekfac", "kfac", "diagonal", "exact"):
        with pytest.raises(ValueError, match="of layer '0' at step 3 is not finite"):
            p.fit(kind)
