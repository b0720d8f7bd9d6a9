"""Queries in bfloat16 meet rows of every form within what that precision promises."""

from __future__ import annotations

import pytest
import torch

from sklearn_source.gradients.algebra import (
    Dense,
    Factored,
    Indexed,
    LowRank,
    Scaled,
    _products,
    add_inner,
    in_bfloat16,
)

N_QUERIES, N_ROWS, OUT, IN = 5, 300, 12, 40


def rows_of(form):
    """A gradient of 300 rows with a matrix of (1, 12, 40) each."""
    generator = torch.Generator().manual_seed(0)
    a, g = (torch.randn(N_ROWS, 1, 3, d, generator=generator) for d in (IN, OUT))
    if form == "indexed":
        return Indexed(torch.randint(0, IN, (N_ROWS, 3), generator=generator), g[:, 0], IN)
    factored = Factored(a, g)
    if form == "dense":
        return Dense(factored.matrix())
    return Scaled(factored, torch.rand(1, OUT, IN, generator=generator)) if form == "scaled" else factored


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("form", ["dense", "factored", "indexed", "scaled"])
def test_scores_are_within_the_bound(form, dtype, monkeypatch):
    monkeypatch.setattr(_products, "CHUNK_BYTES", 2**14)  # several slabs of rows and lines
    rows = rows_of(form)
    queries = torch.randn(N_QUERIES, OUT * IN, generator=torch.Generator().manual_seed(1)).to(dtype)
    matrices = rows.matrix().flatten(1).double()
    found = add_inner(torch.zeros(N_QUERIES, N_ROWS, dtype=torch.float32), in_bfloat16(queries), rows)
    error = (found.double() - queries.double() @ matrices.T).abs()
    scale = queries.double().norm(dim=1)[:, None] * matrices.norm(dim=1)
    bound = (4 if form == "scaled" else 3) * 2**-8 + 2**-14  # its root is multiplied into the queries first
    assert bool((error <= bound * scale).all())
    assert float((error / scale).max()) > 1e-5  # they were rounded


def test_other_forms_of_queries_stay_as_they_are():
    rows = rows_of("factored")
    assert in_bfloat16(rows) is rows
    low_rank = LowRank(torch.ones(1, 1, OUT), torch.ones(1, 1, IN), torch.tensor([0]), [1])
    assert in_bfloat16(low_rank) is low_rank
