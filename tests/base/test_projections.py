"""Random projections: linear, the same for every batch, inner products kept in the mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sklearn_source.base import _projections
from sklearn_source.base._projections import PROJECTIONS, make_projection
from sklearn_source.gradients.algebra import Dense, Factored, Indexed

NAMES = pytest.mark.parametrize("name", PROJECTIONS)


def gradients(n=6, seed=0, dtype=torch.float64):
    """A dense layer, an embedding, a grouped convolution and a vector's block."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    tokens = torch.randint(7, (n, 4), generator=generator)
    return [
        Factored(normal(n, 1, 1, 6), normal(n, 1, 1, 5)),
        Indexed(tokens, normal(n, 4, 3), 7),
        Factored(normal(n, 2, 3, 4), normal(n, 2, 3, 3)),
        Dense(normal(n, 1, 1, 3)),
    ]


def shapes_of(blocks):
    return [block.shape for block in blocks]


def flat(blocks):
    return torch.cat([block.matrix().flatten(1) for block in blocks], dim=1)


@NAMES
def test_linear_and_the_same_whatever_the_form(name):
    blocks = gradients()
    project = make_projection(name, shapes_of(blocks), 20, (3, 1))
    found = project(blocks)
    assert found.shape == (6, project.width)
    assert project.width <= 20
    torch.testing.assert_close(found, project([Dense(block.matrix()) for block in blocks]))
    size = flat(blocks).shape[1]
    unit = torch.eye(size, dtype=torch.float64)
    parts = unit.split([block.matrix()[0].numel() for block in blocks], dim=1)
    matrix = project([Dense(part.reshape(size, *block.shape)) for part, block in zip(parts, blocks)])
    torch.testing.assert_close(found, flat(blocks) @ matrix)


@NAMES
def test_batches_and_pieces_see_one_map(name, monkeypatch):
    blocks = gradients()
    project = make_projection(name, shapes_of(blocks), 20, (3, 1))
    whole = project(blocks)
    monkeypatch.setattr(_projections, "_SIGN_BYTES", 500)
    parts = [project([block[rows] for block in blocks]) for rows in (slice(0, 1), slice(1, 6))]
    torch.testing.assert_close(torch.cat(parts), whole)
    again = make_projection(name, shapes_of(blocks), 20, (3, 1))
    torch.testing.assert_close(again(blocks), whole, rtol=0, atol=1e-12)
    for key in ((3, 2), (4, 1)):
        assert not torch.allclose(make_projection(name, shapes_of(blocks), 20, key)(blocks), whole)


@NAMES
def test_inner_products_are_kept_in_the_mean(name):
    """Of every pair of rows, over many seeds, within what the spread of the mean allows."""
    blocks = gradients(n=4)
    exact, draws = flat(blocks) @ flat(blocks).T, []
    for seed in range(300):
        projected = make_projection(name, shapes_of(blocks), 20, (seed, 0))(blocks)
        draws.append(projected @ projected.T)
    draws = torch.stack(draws)
    error = draws.std(0) / len(draws) ** 0.5
    assert float(error.max()) < 0.15 * float(exact.diagonal().mean())
    assert float(((draws.mean(0) - exact) / error).abs().max()) < 4


@NAMES
def test_nothing_is_projected_where_there_is_room(name):
    blocks = gradients()
    size = flat(blocks).shape[1]
    for n_components in (None, size, size + 1):
        project = make_projection(name, shapes_of(blocks), n_components, (0, 0))
        assert project.width == size
        assert torch.equal(project(blocks), flat(blocks))


def test_kronecker_gives_what_small_blocks_leave_to_the_others():
    shapes = [(1, 1, 3), (1, 40, 50), (2, 30, 30), (1, 2, 900)]
    project = make_projection("kronecker", shapes, 603, (0, 0))
    assert project._sides[0] == (1, 3)
    assert project._sides[3] == (2, 100)
    assert project._sides[1] == (14, 14)
    assert 550 < project.width <= 603
    few = make_projection("kronecker", shapes, 2, (0, 0))  # every block keeps something
    assert few.width == 5


def test_components_of_signs_do_not_depend_on_their_number():
    blocks = gradients()
    narrow, wide = (make_projection("rademacher", shapes_of(blocks), k, (0, 0))(blocks) for k in (5, 20))
    torch.testing.assert_close(narrow, 2 * wide[:, :5])


def test_signs_and_buckets_are_even():
    project = make_projection("rademacher", [(1, 100, 999)], 4, (0, 0))
    bits = np.stack([project._signs(0, component, 99_900) for component in range(4)])
    assert abs(bits.mean() - 0.5) < 0.005
    assert np.abs(np.corrcoef(bits) - np.eye(4)).max() < 0.02
