"""Random numbers that belong to a row, not to its batch or place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sklearn_source.utils._counter_random import row_uniforms

KEYS = {
    "places": np.arange(4000, dtype=np.uint64),  # what data without fingerprints gets
    "hashes": np.random.default_rng(0).integers(0, 2**64, 4000, dtype=np.uint64),
}


def kolmogorov(sample):
    """Distance of a sample to U(0, 1), times the root of its size: above 1.95 for one in a thousand."""
    sample = np.sort(np.asarray(sample).ravel())
    n = len(sample)
    grid = np.arange(n + 1) / n
    return max(np.abs(grid[1:] - sample).max(), np.abs(sample - grid[:-1]).max()) * n**0.5


@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("shape", [(), (1,), (3, 2)], ids=str)
def test_uniform_and_independent(keys, shape):
    u = row_uniforms(KEYS[keys], shape, seed=3, draw=7)
    assert u.shape == (4000, *shape)
    assert u.dtype == torch.float64
    assert 0 < u.min()
    assert u.max() < 1
    columns = u.reshape(4000, -1).numpy()
    for column in columns.T:
        assert kolmogorov(column) < 1.95
        assert abs(np.corrcoef(column[1:], column[:-1])[0, 1]) < 4 / 4000**0.5  # neighbouring rows
        cells = np.histogram2d(column[1:], column[:-1], bins=4, range=[[0, 1], [0, 1]])[0]
        assert ((cells - cells.mean()) ** 2 / cells.mean()).sum() < 45  # chi squared of 15 degrees: one in 10^4
    if columns.shape[1] > 1:
        off = np.corrcoef(columns.T) - np.eye(columns.shape[1])
        assert np.abs(off).max() < 4 / 4000**0.5


def test_a_row_keeps_its_numbers_in_any_batch_and_order():
    keys = KEYS["hashes"][:50]
    whole = row_uniforms(keys, (2, 3), seed=1, draw=0)
    order = np.random.default_rng(1).permutation(50)
    assert torch.equal(row_uniforms(keys[order], (2, 3), seed=1, draw=0), whole[torch.as_tensor(order)])
    parts = [row_uniforms(keys[i : i + 7], (2, 3), seed=1, draw=0) for i in range(0, 50, 7)]
    assert torch.equal(torch.cat(parts), whole)
    assert row_uniforms(keys[:0], (2,), seed=1, draw=0).shape == (0, 2)


@pytest.mark.parametrize("keys", KEYS)
def test_seeds_and_draws_give_unrelated_numbers(keys):
    pairs = [(0, 0), (1, 0), (0, 1), (1, 1), (2, 5), (5, 2), (2**31 - 2, 10**6)]
    samples = np.stack([row_uniforms(KEYS[keys], (), seed=s, draw=d).numpy() for s, d in pairs])
    off = np.corrcoef(samples) - np.eye(len(pairs))
    assert np.abs(off).max() < 4 / 4000**0.5
    assert (samples[0] != samples[1]).all()
    differences = [(a - b) % 1 for i, a in enumerate(samples) for b in samples[:i]]
    assert max(kolmogorov(d) for d in differences) < 2.2
