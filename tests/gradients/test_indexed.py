"""The algebra of an embedding's gradients against the one-hot matrices that it never forms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_source.gradients.algebra import Indexed, _indexed, squared_in_basis, weighted_sum

sizes = st.integers(1, 5)


@st.composite
def problems(draw, n_columns=1):
    rows, positions, width, table = draw(sizes), draw(st.integers(1, 9)), draw(sizes), draw(sizes)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tokens = torch.randint(table, (rows, positions), generator=generator)
    gs = [normal(rows, positions, width) for _ in range(draw(st.integers(1, n_columns)))]
    left = normal(1, width, width) if draw(st.booleans()) else None
    return Indexed(tokens, gs[0], table), gs, left, normal


def explicit(gradient, left=None):
    """(B, 1, d, V) ``sum_t g_t onehot(token_t)^T``, rotated."""
    G = torch.zeros(len(gradient), *gradient.shape, dtype=torch.float64)
    for n in range(len(gradient)):
        for t in range(gradient.n_positions):
            G[n, 0, :, gradient.tokens[n, t]] += gradient.g[n, t]
    return G if left is None else left.transpose(1, 2) @ G


@settings(max_examples=60, deadline=None)
@given(problems())
def test_one_gradient(problem):
    gradient, _, left, normal = problem
    G = explicit(gradient)
    rows, _, width, table = G.shape
    assert len(gradient) == rows
    assert gradient.shape == (1, width, table)
    torch.testing.assert_close(gradient.matrix(), G)
    torch.testing.assert_close(gradient.matrix(out=torch.full_like(G, 7.0)), G)
    torch.testing.assert_close(gradient[1:].matrix(), G[1:])
    torch.testing.assert_close(gradient.merged().matrix(), G)
    torch.testing.assert_close(gradient.rotate(left, None).matrix(), explicit(gradient, left))
    torch.testing.assert_close(gradient.rotate_tokens(left, None).matrix(), explicit(gradient, left))
    root = normal(1, width, table)
    torch.testing.assert_close(gradient.scaled(root).matrix(), G * root)
    torch.testing.assert_close(gradient.squared_norm(), G.flatten(1).square().sum(1))
    own, queries, start = normal(rows, width * table), normal(3, width * table), normal(3, rows)
    torch.testing.assert_close(gradient.rowwise_inner(own), (own * G.flatten(1)).sum(1))
    total = start.clone()
    assert gradient.inner_(queries, total) is total
    torch.testing.assert_close(total, start + queries @ G.flatten(1).T)
    one_hot = torch.nn.functional.one_hot(gradient.tokens.flatten(), table).double()
    torch.testing.assert_close(torch.diag(gradient.input_moment()[0]), one_hot.T @ one_hot)
    flat = gradient.g.flatten(0, 1)
    torch.testing.assert_close(gradient.output_moment(), (flat.T @ flat).unsqueeze(0))
    a, s = gradient.moments(True, True)
    torch.testing.assert_close(a, torch.einsum("bgoi,bgoi->gi", G, G))
    torch.testing.assert_close(s, torch.einsum("bgoi,bgpi->gop", G, G))
    assert gradient.moments(False, False) == (None, None)


@settings(max_examples=40, deadline=None)
@given(problems(n_columns=3))
def test_squares_in_a_basis_summed_over_rows_and_columns(problem):
    first, gs, left, _ = problem
    columns = [Indexed(first.tokens, g, first.n_tokens) for g in gs]
    expected = sum(explicit(column, left).square().sum(0) for column in columns)
    torch.testing.assert_close(squared_in_basis(columns, left, None), expected)


@settings(max_examples=40, deadline=None)
@given(problems(), st.lists(st.floats(0.01, 2), min_size=1, max_size=4))
def test_weighted_sums_over_checkpoints(problem, weights):
    first, _, left, normal = problem
    gradients = [first] + [Indexed(first.tokens, normal(*first.g.shape), first.n_tokens) for _ in weights[1:]]
    kept = [gradient.g.clone() for gradient in gradients]
    summed = weighted_sum(gradients, weights)
    expected = sum(w * explicit(gradient, left) for w, gradient in zip(weights, gradients))
    torch.testing.assert_close(summed.rotate_tokens(left, None).matrix(), expected)
    for gradient, before in zip(gradients, kept):  # used again by the next segment
        assert torch.equal(gradient.g, before)


def test_chunks_change_nothing(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(9, (13, 4), generator=generator)
    gradient = Indexed(tokens, torch.randn(13, 4, 3, generator=generator, dtype=torch.float64), 9)
    queries = torch.randn(5, 27, generator=generator, dtype=torch.float64)
    expected = queries @ explicit(gradient).flatten(1).T
    for budget in (1, 500, 2000, 2**23):
        monkeypatch.setattr(_indexed, "CHUNK_BYTES", budget)
        torch.testing.assert_close(gradient.inner_(queries, torch.zeros(5, 13).double()), expected)


def test_the_input_side_keeps_its_coordinates():
    gradient = Indexed(torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 3, 4), 5)
    with pytest.raises(ValueError, match="right must be None"):
        gradient.rotate(None, torch.eye(5).unsqueeze(0))


def test_nothing_as_large_as_the_table_is_held():
    """A table of a million tokens, whose one-hot vectors for these rows would take gigabytes."""
    gradient = Indexed(torch.tensor([[1, 999_999, 1]] * 300), torch.ones(300, 3, 2), 10**6)
    assert sum(t.numel() for t in gradient.tensors()) < 10_000
    torch.testing.assert_close(gradient.squared_norm(), torch.full((300,), 2.0 * (4 + 1)))
    out = gradient.inner_(torch.ones(1, 2 * 10**6), torch.zeros(1, 300))
    torch.testing.assert_close(out, torch.full((1, 300), 6.0))
    assert gradient.input_moment().shape == (1, 10**6)
    squares = squared_in_basis([gradient], torch.eye(2).unsqueeze(0), None)
    assert float(squares[0, 0, 1]) == 4 * 300
