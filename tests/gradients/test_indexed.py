"""The algebra of an embedding's gradients against the one-hot matrices that it never forms."""

from __future__ import annotations

import pytest
import torch

from sklearn_source.gradients.algebra import Indexed, _indexed, squared_in_basis


def explicit(gradient, left=None):
    """(B, 1, d, V) ``sum_t g_t onehot(token_t)^T``, rotated."""
    G = torch.zeros(len(gradient), *gradient.shape, dtype=torch.float64)
    for n in range(len(gradient)):
        for t in range(gradient.n_positions):
            G[n, 0, :, gradient.tokens[n, t]] += gradient.g[n, t]
    return G if left is None else left.transpose(1, 2) @ G


def test_a_merged_gradient_has_every_token_once():
    gradient = Indexed(torch.tensor([[2, 0, 2, 1]]), torch.arange(4.0).view(1, 4, 1), 3)
    once = gradient.merged()
    torch.testing.assert_close(once.matrix(), gradient.matrix())
    assert once.tokens.tolist() == [[0, 1, 2, 0]]
    assert once.g.flatten().tolist() == [1, 3, 0 + 2, 0]


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
