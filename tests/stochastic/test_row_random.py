"""Random numbers of a row, by its content and the draw alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sklearn_source.rows import hash_batch
from sklearn_source.stochastic import Draw, RowRandom, fresh_draws

FIRST = Draw(0, 1)


def of(keys, draw=FIRST, dtype=torch.float64):
    return RowRandom(np.asarray(keys, dtype=np.uint64), draw, dtype, "cpu")


def test_numbers_have_their_distributions():
    keys = np.arange(20_000)
    uniform, normal = of(keys).uniform((2,)), of(keys).normal((2,))
    integers = of(keys).integers(3, 8)
    assert uniform.min() > 0
    assert uniform.max() < 1
    np.testing.assert_allclose(uniform.mean(0), 0.5, atol=0.01)
    np.testing.assert_allclose(uniform.var(0), 1 / 12, atol=0.002)
    np.testing.assert_allclose(normal.mean(0), 0, atol=0.03)
    np.testing.assert_allclose(normal.var(0), 1, atol=0.05)
    np.testing.assert_allclose((normal**4).mean(0), 3, atol=0.25)
    np.testing.assert_allclose(np.corrcoef(normal.T)[0, 1], 0, atol=0.03)
    counts = np.bincount(integers, minlength=8)
    assert counts[:3].sum() == 0
    assert counts[3:].min() > 3700


def test_numbers_are_of_the_row():
    keys = hash_batch(torch.randn(10, 3))
    whole, part = of(keys).normal((4,)), of(keys[[7, 2]]).normal((4,))
    assert torch.equal(part, whole[[7, 2]])


def test_every_request_and_every_draw_is_another():
    random = of([5])
    seen = [float(random.uniform()) for _ in range(3)]
    seen += [float(of([5], draw).uniform()) for draw in (Draw(0, 2), Draw(1, 1))]
    assert len(set(seen)) == 5
    assert float(of([5], Draw(0, 1, given=3)).uniform()) == seen[0]
    for _ in range(61):
        random.uniform()
    with pytest.raises(ValueError, match="at most 64 requests"):
        random.uniform()


def test_fresh_draws_are_no_epochs():
    draws = fresh_draws(0, 2, given=[10, 20])
    assert [draw.given for draw in draws] == [10, 10, 20, 20]
    assert len({draw.number for draw in draws}) == 4
    assert min(draw.number for draw in draws) > 10**6


def test_type_and_device_are_those_asked_for():
    assert of([1], dtype=torch.float32).normal().dtype == torch.float32
    assert of([1], dtype=torch.float32).integers(0, 5).dtype == torch.int64
