"""Queries as few outer products: the error measured against the matrices, the ranks against those of the exact SVD."""

from __future__ import annotations

import pytest
import torch

from sklearn_source.gradients.algebra import (
    Dense,
    Factored,
    Indexed,
    LowRank,
    Meeting,
    Scaled,
    _dyads,
    _low_rank,
    add_inner,
    low_rank,
    rowwise_inner,
    to_meet,
)

TOLERANCES = (0.3, 1e-2, 1e-4)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def decaying(n, groups, out, inp, decay=0.5, dtype=torch.float64):
    """Matrices of singular values ``decay**j``, the slower the later; the last is zero."""
    k = min(out, inp)
    left, right = (torch.linalg.qr(normal(n, groups, size, k, seed=size)).Q for size in (out, inp))
    exponents = torch.arange(k) * torch.linspace(1.0, 0.3, n, dtype=torch.float64)[:, None, None]
    matrices = (left * decay ** exponents[:, :, None]) @ right.mT * torch.logspace(-3, 3, n)[:, None, None, None]
    matrices[-1] = 0
    return matrices.to(dtype)


def fewest(matrices, tol):
    """(n,) ranks of the best approximations, the groups' alike, by the exact decomposition in float64."""
    squares = torch.linalg.svdvals(matrices.double()).square().sum(1)
    tails = squares.flip(1).cumsum(1).flip(1)
    return (tails > tol**2 * squares.sum(1, keepdim=True)).sum(1)


def errors(queries, matrices):
    return (queries.matrix() - matrices).double().flatten(1).norm(dim=1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("tol", TOLERANCES)
@pytest.mark.parametrize("groups, out, inp", [(1, 90, 70), (1, 48, 200), (3, 40, 50), (1, 6, 90), (1, 40, 1)])
def test_the_error_is_within_the_tolerance_and_ranks_are_the_fewest(groups, out, inp, tol, dtype):
    matrices = decaying(7, groups, out, inp, dtype=dtype)
    queries = low_rank(matrices, tol, most=1e9)
    assert (errors(queries, matrices) <= tol * matrices.double().flatten(1).norm(dim=1)).all()
    best = fewest(matrices, tol)
    assert (queries.ranks >= fewest(matrices, tol * (1 + 1e-5))).all()
    found = best < min(out, inp) // 3  # one that needs more may come out line by line
    assert (queries.ranks[found] <= (best + 1 + best // 4)[found]).all()
    assert (queries.ranks <= min(out, inp)).all()
    assert queries.n_components == queries.ranks.sum() == sum(queries.counts)
    assert queries.ranks[-1] == 0
    assert queries.shape == matrices.shape[1:]


def test_a_sketch_grows_until_the_tolerance_is_met(monkeypatch):
    """Slow decay: one block of the sketch is far from enough."""
    matrices = decaying(3, 1, 150, 120, decay=0.9)
    monkeypatch.setattr(_dyads, "BLOCK", 4)
    queries = low_rank(matrices, 0.05, most=1e9)
    assert int(queries.ranks.max()) > 16
    assert (errors(queries, matrices) <= 0.05 * matrices.flatten(1).norm(dim=1)).all()
    assert (queries.ranks - fewest(matrices, 0.05)).abs().max() <= 3


def test_what_the_sketch_misses_is_seen(monkeypatch):
    """A sketch whose columns see nothing of the matrix: its lines come out instead, without error."""
    matrices = decaying(4, 1, 50, 60)[:3]
    monkeypatch.setattr(
        _dyads, "_sketched",
        lambda M, allowed, widest: (torch.eye(50).double()[:, -2:].expand(3, 1, -1, -1), M[:, :, -2:], 0 * allowed),
    )  # fmt: skip
    queries = low_rank(matrices, 0.1, most=1e9)
    assert queries.ranks.tolist() == [50, 50, 50]
    torch.testing.assert_close(queries.matrix(), matrices)


def test_a_query_of_full_rank_among_others_comes_out_exactly():
    matrices = decaying(12, 1, 64, 80)
    matrices[5] = normal(1, 64, 80)
    queries = low_rank(matrices, 1e-3, most=12 * 30)
    assert queries.ranks[5] == 64
    assert queries.ranks[4] < 40
    torch.testing.assert_close(queries.matrix()[5], matrices[5])


def test_nothing_is_given_where_ranks_are_not_worth_it():
    matrices = normal(20, 1, 64, 80)
    assert low_rank(matrices, 1e-3, most=20 * 10) is None
    assert low_rank(decaying(20, 1, 64, 80), 1e-3, most=20) is None
    assert low_rank(matrices, 0.999, most=20 * 10) is not None


def test_ranks_and_components_do_not_depend_on_the_other_queries(monkeypatch):
    matrices = decaying(9, 1, 60, 70)
    whole = low_rank(matrices, 1e-2, most=1e9)
    monkeypatch.setattr(_low_rank, "CHUNK_BYTES", 2 * 60 * 70 * 8)
    assert torch.equal(low_rank(matrices, 1e-2, most=1e9).ranks, whole.ranks)
    alone = torch.cat([low_rank(matrices[i : i + 1], 1e-2, most=1e9).matrix() for i in range(9)])
    torch.testing.assert_close(alone, whole.matrix(), rtol=1e-9, atol=1e-12)


def test_numbers_that_are_none_go_through():
    """Whoever meets them says which layer they are of."""
    matrices = decaying(3, 1, 40, 50)
    matrices[1, 0, 3, 4] = float("nan")
    assert low_rank(matrices, 1e-2, most=1e9).matrix().isnan().any()


def factored(rows, groups, positions, out, inp, seed):
    return Factored(
        normal(rows, groups, positions, inp, seed=seed), normal(rows, groups, positions, out, seed=seed + 1)
    )


ROWS = {
    "one position": factored(11, 1, 1, 40, 36, 2),
    "tokens": factored(11, 1, 5, 40, 36, 2),
    "groups": factored(11, 3, 4, 40, 36, 2),
    "matrices": Dense(normal(11, 2, 40, 36, seed=2)),
    "in a metric": Scaled(factored(11, 1, 3, 40, 36, 2), normal(1, 40, 36, seed=9).abs()),
    "embedding": Indexed(torch.randint(36, (11, 6), generator=torch.Generator().manual_seed(1)), normal(11, 6, 40), 36),
}


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("together", [2048, 3])
def test_inner_products_with_rows_of_every_form(kind, together, monkeypatch):
    monkeypatch.setattr(_low_rank, "_TOGETHER", together)
    rows = ROWS[kind]
    matrices = decaying(6, *rows.shape)
    queries = low_rank(matrices, 1e-2, most=1e9)
    start, G = normal(6, 11, seed=5), rows.matrix().flatten(1)
    expected = start + queries.matrix().flatten(1) @ G.T
    torch.testing.assert_close(add_inner(start.clone(), queries, rows), expected)
    bound = 1e-2 * matrices.flatten(1).norm(dim=1)[:, None] * G.norm(dim=1)
    assert ((expected - start - matrices.flatten(1) @ G.T).abs() <= bound).all()
    own = low_rank(decaying(11, *rows.shape), 1e-2, most=1e9)
    torch.testing.assert_close(rowwise_inner(own, rows), (own.matrix().flatten(1) * G).sum(1))


@pytest.mark.parametrize("budget", [1, 2**14])
def test_chunks_of_rows_change_nothing(budget, monkeypatch):
    from sklearn_source.gradients.algebra import _factored

    rows, queries = ROWS["groups"], low_rank(decaying(6, 3, 40, 36), 1e-2, most=1e9)
    expected = queries.matrix().flatten(1) @ rows.matrix().flatten(1).T
    monkeypatch.setattr(_factored, "CHUNK_BYTES", budget)
    monkeypatch.setattr(_factored, "LAYOUT_BYTES", budget)
    torch.testing.assert_close(queries.inner_(rows, torch.zeros(6, 11).double()), expected)


def test_rotated_factors_are_those_of_rotated_matrices():
    queries = low_rank(decaying(5, 2, 40, 36), 1e-2, most=1e9)
    left, right = normal(2, 40, 40), normal(2, 36, 36)
    expected = left.mT @ queries.matrix() @ right
    torch.testing.assert_close(queries.rotate(left, right).matrix(), expected)
    torch.testing.assert_close(queries.rotate(None, right).matrix(), queries.matrix() @ right)


def test_the_form_is_chosen_by_operations():
    """Few rows, many positions, forms without factors: as they were. Many rows of few positions: outer products."""
    vectors = decaying(20, 1, 200, 300)
    few, many = factored(2, 1, 1, 200, 300, 0), factored(2, 1, 200, 200, 300, 0)
    assert isinstance(Meeting(few, 100_000, 1e-2).low_rank(vectors), LowRank)
    assert Meeting(few, 100_000, None).low_rank(vectors) is None
    assert Meeting(few, 20, 1e-2).low_rank(vectors) is None
    assert Meeting(many, 100_000, 1e-2).low_rank(vectors) is None
    assert Meeting(Dense(few.matrix()), 100_000, 1e-2).low_rank(vectors) is None
    assert Meeting(few, 100_000, 1e-2).low_rank(vectors[:0]) is None


def test_factored_queries_are_narrowed_where_they_have_more_positions_than_ranks():
    a, g = normal(4, 1, 1, 300).expand(-1, -1, 6, -1), normal(4, 1, 6, 200, seed=1)
    pairs = to_meet([Factored(a, g)], -2.0)
    rows = factored(2, 1, 6, 200, 300, 0)
    assert isinstance(pairs, Factored)
    queries = Meeting(rows, 100_000, 1e-6).low_rank(pairs)
    assert queries.ranks.tolist() == [1] * 4
    torch.testing.assert_close(queries.matrix(), pairs.matrix(), rtol=1e-5, atol=1e-5)
    assert Meeting(rows, 100_000, 1e-6).low_rank(to_meet([factored(4, 1, 6, 200, 300, 3)])) is None
