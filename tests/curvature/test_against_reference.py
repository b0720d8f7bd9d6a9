"""Factors and ``phi(H) v`` against the dense float64 reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sklearn_source.curvature import choose_fisher, moments
from sklearn_source.curvature._covariances import averaged_moments, eigenbases, whole_eigenvalues
from sklearn_source.curvature._eigenvalues import corrected_eigenvalues
from sklearn_source.gradients import to_matrices
from sklearn_source.utils._counter_random import row_uniforms
from tests.curvature._problems import PHIS, SETTINGS, TOLERANCE, WEIGHTS, matrix_of, relative
from tests.reference import block_factors, blocks_matrix, ggn, ggn_from_columns, phi_dense

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
NAMES = pytest.mark.parametrize("name", SETTINGS)


def reference_blocks(p, kind="ekfac", fisher="exact", which=(0, 1), columns=None, y=None):
    columns = p.columns(fisher) if columns is None else columns
    y = p.y if y is None else y
    dense = [n for b in p.engine.blocks if b.kind == "dense" for n in b.parameters]
    return block_factors(p.module64, p.weighted(which), columns, p.X, y, kind, names=list(p.names), dense=dense)


@NAMES
@DTYPES
@pytest.mark.parametrize("fisher", ["exact", "empirical"])
@pytest.mark.parametrize("kind", ["ekfac", "kfac", "diagonal"])
def test_block_diagonal_curvatures(name, dtype, fisher, kind, problem):
    p = problem(name, dtype)
    curvature = p.fit(kind, fisher)
    blocks = reference_blocks(p, kind, fisher)
    for phi in PHIS.values():
        assert relative(p.dense(curvature, phi), blocks_matrix(blocks, phi)) < TOLERANCE[dtype]
    actual = torch.cat([values.flatten() for values in curvature.spectrum()]).sort().values
    expected = torch.cat([block.eigenvalues.flatten() for block in blocks]).sort().values
    assert relative(actual, expected) < TOLERANCE[dtype]


@NAMES
@DTYPES
@pytest.mark.parametrize("fisher", ["exact", "empirical"])
def test_exact_curvature_is_the_dense_matrix(name, dtype, fisher, problem):
    p = problem(name, dtype)
    curvature = p.fit("exact", fisher)
    if fisher == "exact":
        H = sum(w * ggn(p.module64, params, p.loss_fn, p.X, p.y, p.names) for params, w in p.weighted())
    else:
        H = sum(
            w * ggn_from_columns(p.module64, params, p.columns(fisher), p.X, p.y, p.names) for params, w in p.weighted()
        )
    for phi in PHIS.values():
        assert relative(p.dense(curvature, phi), phi_dense(H, phi)) < TOLERANCE[dtype]
    (actual,) = curvature.spectrum()
    expected = torch.linalg.eigvalsh(H).clamp_min(0)
    assert relative(actual.sort().values, expected) < TOLERANCE[dtype]
    assert curvature.mean_eigenvalue(0) == pytest.approx(float(torch.trace(H)) / len(H), rel=TOLERANCE[dtype])


@DTYPES
def test_exact_curvature_in_a_metric(dtype, problem):
    p = problem("conv", dtype)
    metric = [0.1 * (i + 1) for i in range(len(p.engine.blocks))]
    H = sum(w * ggn(p.module64, params, p.loss_fn, p.X, p.y, p.names) for params, w in p.weighted())
    flat = p.from_blocks([torch.full((1, *b.shape), m, dtype=dtype) for b, m in zip(p.engine.blocks, metric)])[0]
    M = flat.sqrt()[:, None] * H * flat.sqrt()
    curvature = p.fit("exact").in_metric(metric)
    for phi in PHIS.values():
        assert relative(p.dense(curvature, phi), phi_dense(M, phi)) < TOLERANCE[dtype]
    blocks = reference_blocks(p)
    M = flat.sqrt()[:, None] * blocks_matrix(blocks) * flat.sqrt()
    for phi in PHIS.values():
        assert relative(p.dense(p.fit("ekfac").in_metric(metric), phi), phi_dense(M, phi)) < TOLERANCE[dtype]


@DTYPES
@pytest.mark.parametrize("name", ["mlp", "conv", "tokens"])
@pytest.mark.parametrize("fisher", ["exact", "empirical"])
def test_covariances_are_those_of_the_method(name, dtype, fisher, problem):
    """A: mean over rows and positions. S: mean over rows, sum over positions and columns. A bias: a column of ones."""
    p = problem(name, dtype)
    stream = p.stream(fisher)
    at = [moments(stream, c) for c in (0, 1)]
    layout = p.layout
    indices = {k: layout.indices(k) for k in layout.names}
    expected = {block.label: block for block in reference_blocks(p, fisher=fisher)}
    seen = 0
    for i, block in enumerate(p.engine.blocks):
        A, S = (sum(w * at[c][i][side] for c, w in enumerate(WEIGHTS)) for side in (0, 1))
        where = to_matrices(block, indices)  # (groups, out, in) of flat positions
        for group in range(block.shape[0]):
            label = block.module if block.kind == "factored" else block.name
            reference = expected[label if block.shape[0] == 1 else f"{label}[{group}]"]
            order = torch.tensor([reference.index[0].tolist().index(k) for k in where[group, 0].tolist()])
            assert torch.equal(reference.index[:, order], where[group])
            assert relative(A[group], reference.A[order][:, order]) < TOLERANCE[dtype]
            assert relative(S[group], reference.S) < TOLERANCE[dtype]
            seen += 1
    assert seen == len(expected)


@NAMES
def test_sampled_fisher_at_given_draws(name, problem):
    """The reference is fed the package's own draws: what remains is where they go, and by what they are divided."""
    p = problem(name, torch.float64)
    n_samples, seed, c = 2, 11, 1
    keys = np.arange(100, 100 + p.n_rows, dtype=np.uint64)
    point = p.checkpoints[c]

    def columns(output, y):
        row = int(y)
        hessian = p.network.row_loss.output_hessian(output, p.y[row : row + 1])
        found = []
        for draw in range(n_samples):
            number = (point.step + 1) * n_samples + draw
            uniforms = row_uniforms(keys[row : row + 1], hessian.uniforms_shape, seed=seed, draw=number)
            found.append(hessian.draw(uniforms) / n_samples**0.5)
        return found

    rows = torch.arange(p.n_rows)
    for kind in ("ekfac", "diagonal"):
        curvature = p.fit(kind, "sampled", which=(c,), n_samples=n_samples, seed=seed)
        blocks = reference_blocks(p, kind, which=(c,), columns=columns, y=rows)
        for phi in PHIS.values():
            assert relative(p.dense(curvature, phi), blocks_matrix(blocks, phi)) < 1e-8


@NAMES
def test_sampled_fisher_tends_to_the_exact_one(name, problem):
    p = problem(name, torch.float64)
    exact = matrix_of(p, p.stream("exact"))

    def draws(n_samples, seeds):
        return [matrix_of(p, p.stream("sampled", n_samples=n_samples, seed=s)) for s in range(seeds)]

    few, many = draws(1, 16), draws(16, 8)
    spread = [np.mean([relative(H, exact) for H in actual]) for actual in (few, many)]
    assert spread[1] < 0.5 * spread[0]  # one quarter on average
    assert relative(sum(many) / 8, exact) < spread[1] / 1.5  # and no bias: 1 / sqrt(8) on average


def test_automatic_choice_of_fisher(problem):
    network = problem("mlp", torch.float64).network
    assert choose_fisher("auto", network, 16) == "exact"
    assert choose_fisher("auto", network, 17) == "sampled"
    assert choose_fisher("empirical", network, 3) == "empirical"


@NAMES
@pytest.mark.parametrize(
    "kind, fisher", [("ekfac", "exact"), ("ekfac", "sampled"), ("kfac", "exact"), ("exact", "sampled")]
)
def test_batches_and_cache_change_nothing(name, kind, fisher, problem):
    p = problem(name, torch.float64)
    first = p.dense(p.fit(kind, fisher, batch_size=9, cache_bytes=0), PHIS["inverse"])
    for batch_size in (1, 2, 4, 100):
        for cache_bytes in (0, 3000, 2**30):
            other = p.dense(p.fit(kind, fisher, batch_size=batch_size, cache_bytes=cache_bytes), PHIS["inverse"])
            assert relative(other, first) < 1e-10


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_order_of_rows_changes_nothing_also_when_sampled(name, problem):
    p = problem(name, torch.float64)
    order = np.random.default_rng(0).permutation(p.n_rows)
    for kind, fisher in (("ekfac", "sampled"), ("exact", "exact")):
        first = p.dense(p.fit(kind, fisher), PHIS["inverse"])
        assert relative(p.dense(p.fit(kind, fisher, index=order), PHIS["inverse"]), first) < 1e-10


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_a_subset_of_rows_is_averaged_over_itself(name, problem):
    p = problem(name, torch.float64)
    index = np.array([7, 2, 3])
    H = sum(w * ggn(p.module64, params, p.loss_fn, p.X[index], p.y[index], p.names) for params, w in p.weighted())
    assert relative(p.dense(p.fit("exact", index=index)), H) < 1e-10
    assert relative(torch.diagonal(p.dense(p.fit("diagonal", index=index))), torch.diagonal(H)) < 1e-10


def test_the_cache_saves_the_second_pass(problem):
    p = problem("mlp", torch.float64)

    def passes(cache_bytes):
        stream = p.stream(cache_bytes=cache_bytes)
        computed = []
        compute = stream._compute
        stream._compute = lambda c, start: computed.append((c, start)) or compute(c, start)
        for _ in range(2):
            for c in (0, 1):
                list(stream.columns(c))
        return computed

    assert len(passes(2**30)) == 6  # two checkpoints of three batches, once
    assert len(passes(0)) == 12
    assert 6 < len(passes(6000)) < 12


def test_the_trace_is_that_of_the_matrix(problem):
    for name in SETTINGS:
        p = problem(name, torch.float64)
        H = sum(w * ggn(p.module64, params, p.loss_fn, p.X, p.y, p.names) for params, w in p.weighted())
        for kind in ("ekfac", "diagonal", "exact"):
            spectrum = p.fit(kind).spectrum()
            assert float(sum(s.sum() for s in spectrum)) == pytest.approx(float(torch.trace(H)), rel=1e-10)


@pytest.mark.parametrize("basis", ["kfac", "shampoo"])
@NAMES
def test_eigenvalues_of_vectors_are_those_of_their_covariance(name, basis, problem):
    """As measuring them in the eigenbasis gives; there are such blocks, and others."""
    p = problem(name, torch.float64)
    stream = p.stream()
    bases, values = eigenbases(averaged_moments(stream, lambda stream, c: moments(stream, c, basis)), torch.float64)
    known = whole_eigenvalues(stream, values, basis)
    assert any(own is None for own in known)
    for own, measured in zip(known, corrected_eigenvalues(stream, bases)):
        if own is not None:
            torch.testing.assert_close(own, measured, rtol=1e-8, atol=1e-12)
    if name in ("mlp", "conv"):
        assert sum(own is not None for own in known) >= 2  # of a norm
