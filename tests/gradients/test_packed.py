"""Stored gradients against those that were packed: within the tolerance row by row, in no more bytes than matrices."""

from __future__ import annotations

import pytest
import torch

from sklearn_source.gradients.algebra import Dense, Factored, Indexed, pack, unpack

B = 9


def factored(positions, out, inp, dtype, groups=1, decay=0.0):
    generator = torch.Generator().manual_seed(positions + out)
    a, g = (torch.randn(B, groups, positions, d, generator=generator, dtype=dtype) for d in (inp, out))
    sizes = 10.0 ** torch.linspace(-6, 6, B, dtype=dtype)[:, None, None, None]  # rows of very different sizes
    return Factored(a, g * sizes * torch.exp(-decay * torch.arange(positions, dtype=dtype))[:, None])


def indexed(dtype):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, (B, 7), generator=generator)
    g = torch.randn(B, 7, 4, generator=generator, dtype=dtype)
    g[0] = 0  # a row without a gradient
    return Indexed(tokens, g, 11)


CASES = {
    "one position": lambda dtype: factored(1, 12, 30, dtype),
    "checkpoints": lambda dtype: factored(5, 40, 30, dtype, decay=2.0),
    "sequence": lambda dtype: factored(24, 12, 30, dtype, decay=0.8),
    "long sequence": lambda dtype: factored(80, 50, 40, dtype, decay=0.2),
    "full rank": lambda dtype: factored(64, 12, 10, dtype),
    "groups": lambda dtype: factored(3, 8, 9, dtype, groups=2, decay=3.0),
    "dense": lambda dtype: Dense(factored(3, 20, 25, dtype, decay=3.0).matrix()),
    "vector": lambda dtype: Dense(factored(1, 20, 1, dtype).matrix()),
    "none": lambda dtype: Factored(torch.zeros(B, 1, 3, 8, dtype=dtype), torch.zeros(B, 1, 3, 9, dtype=dtype)),
    "embedding": indexed,
}


def n_bytes(tensors):
    return sum(t.numel() * t.element_size() for t in tensors.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tol", [None, 1e-8, 1e-4, 2e-3, 0.01, 0.1])
@pytest.mark.parametrize("case", CASES)
def test_every_row_is_within_the_tolerance(case, tol, dtype):
    gradient = CASES[case](dtype)
    tensors = pack(gradient, tol)
    found = unpack(tensors, gradient.shape, gradient.tensors()[-1])
    assert found.matrix().dtype == dtype
    expected = gradient.matrix().double()
    size = expected.flatten(1).norm(dim=1)
    error = (found.matrix().double() - expected).flatten(1).norm(dim=1)
    rounding = 10 * torch.finfo(dtype).eps
    assert (error <= max(tol or 0, rounding) * size).all()
    # As the matrix at most, but for the numbers of components.
    if case != "embedding":
        assert n_bytes(tensors) <= expected.numel() * tensors.get("matrix", tensors.get("left")).element_size() + 8 * B


@pytest.mark.parametrize("tol", [0.01, 0.1])
def test_few_outer_products_are_found_where_there_are_few(tol):
    for case in ("checkpoints", "sequence", "dense", "groups"):
        gradient = CASES[case](torch.float64)
        counts = pack(gradient, tol)["counts"]
        singular = torch.linalg.svdvals(gradient.matrix()).square().sum(1)  # of the groups together
        tails = singular.flip(1).cumsum(1).flip(1)
        fewest = (tails > (tol * tails[:, :1].sqrt()).square()).sum(1)
        assert (counts >= fewest).all()
        assert (counts <= fewest + 1).all(), case  # rounding takes a share of the tolerance


def test_half_precision_keeps_small_rows_and_large_ones():
    gradient = factored(1, 12, 30, torch.float32)
    assert gradient.matrix().flatten(1).norm(dim=1).max() > 1e6  # beyond the range of half precision
    tensors = pack(gradient, 0.01)
    assert tensors["left"].dtype == tensors["right"].dtype == torch.float16
    assert set(pack(gradient, None)) == {"left", "right", "counts"}


def test_scores_of_unpacked_rows_are_within_the_bound():
    """|<V, G~> - <V, G>| <= tol |V| |G|, met for a V along the error itself: the test can fail."""
    gradient = CASES["sequence"](torch.float64)
    found = unpack(pack(gradient, 0.1), gradient.shape, gradient.tensors()[-1])
    error = (found.matrix() - gradient.matrix()).flatten(1)
    V = error / error.norm(dim=1, keepdim=True)
    met = [g.inner_(V, V.new_zeros(B, B)).diagonal() for g in (found, gradient)]
    size = gradient.matrix().flatten(1).norm(dim=1)
    gap = (met[0] - met[1]).abs() / size
    assert (gap <= 0.1).all()
    assert gap.max() > 0.02
