"""Pairs of factored gradients, Gram matrices and slabs against explicit einsums; the forms are in test_row_gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_source.gradients.algebra import (
    Dense,
    Factored,
    Inputs,
    Scaled,
    _factored,
    _moments,
    _pairs,
    _products,
    add_pairs,
    chosen,
    condensed,
    formed,
    joined,
    rowwise_pairs,
    squared_in_basis,
    to_meet,
    unit_vectors,
)

sizes = st.integers(1, 5)


@st.composite
def problems(draw, n_columns=1):
    """rows, groups, positions, out, in; which sides are rotated; a generator."""
    rows, groups, out, inp = (draw(sizes) for _ in range(4))
    positions = draw(st.integers(1, 9))  # far more than out or in, too: every branch of the cost rules
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    a = normal(rows, groups, positions, inp)
    gs = [normal(rows, groups, positions, out) for _ in range(draw(st.integers(1, n_columns)))]
    left = normal(groups, out, out) if draw(st.booleans()) else None
    right = normal(groups, inp, inp) if draw(st.booleans()) else None
    if draw(st.booleans()):  # as gradients come from autograd: not contiguous
        a, gs = a.transpose(2, 3).contiguous().transpose(2, 3), [g.flip(0).flip(0).mT.contiguous().mT for g in gs]
    return a, gs, left, right, normal


def explicit(a, g, left=None, right=None):
    G = torch.einsum("bgto,bgti->bgoi", g, a)
    if left is not None:
        G = torch.einsum("gpo,bgpi->bgoi", left, G)
    if right is not None:
        G = torch.einsum("bgoj,gji->bgoi", G, right)
    return G


@settings(max_examples=40, deadline=None)
@given(problems(n_columns=3), st.booleans(), st.booleans())
def test_moments_by_gram_matrices(problem, wanted_input, wanted_output):
    a, gs, _, _, _ = problem
    wholes = [explicit(a, g) for g in gs]
    expected = (
        sum(torch.einsum("bgoi,bgoj->gij", G, G) for G in wholes) if wanted_input else None,
        sum(torch.einsum("bgoi,bgpi->gop", G, G) for G in wholes) if wanted_output else None,
    )
    sums = _moments.moments_by_grams(a, gs, wanted_input, wanted_output)
    for moment, exact in zip(sums, expected, strict=True):
        if exact is None:
            assert moment is None
        else:
            torch.testing.assert_close(moment, exact)


@settings(max_examples=40, deadline=None)
@given(problems(), st.integers(1, 3), st.booleans(), st.integers(1, 200))
def test_pairs_of_factored_gradients(problem, positions, batched, budget):
    a, (g,), _, _, normal = problem
    rows, groups, _, inp = a.shape
    queries = Factored(normal(4, groups, positions, inp), normal(4, groups, positions, g.shape[3]))
    G, Q = explicit(a, g).flatten(1), explicit(queries.a, queries.g).flatten(1)
    start = normal(4, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_pairs, "CHUNK_BYTES", budget)  # one row at a time, or many
        torch.testing.assert_close(add_pairs(start.clone(), queries, Factored(a, g)), start + Q @ G.T)
    torch.testing.assert_close(rowwise_pairs(Factored(a, g), Factored(a, g)), G.square().sum(1))
    parts = [queries[:1], queries[1:]] if batched else [queries]
    for values in (to_meet(parts, 2.5), to_meet(parts, torch.full(queries.shape, 2.5, dtype=a.dtype))):
        (unit,) = unit_vectors([values])
        for actual, expected in ((values, 2.5 * Q), (unit, Q / Q.norm(dim=1, keepdim=True))):
            vectors = actual.matrix().flatten(1) if isinstance(actual, Factored) else actual
            torch.testing.assert_close(vectors, expected)


def test_queries_stay_factored_where_that_is_less_work():
    wide, tall = torch.ones(2, 1, 1, 9), torch.ones(2, 1, 6, 9)
    assert isinstance(to_meet([Factored(wide, wide)]), Factored)
    assert isinstance(to_meet([Factored(tall, tall)]), torch.Tensor)


@pytest.mark.parametrize("groups, out, inp, positions", [(1, 7, 5, 1), (1, 7, 5, 4), (2, 4, 3, 3)])
def test_slabs_and_chunks_change_nothing(monkeypatch, groups, out, inp, positions):
    """The same numbers whatever the byte budget: slabs of lines, chunks of rows, both uneven."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(11, groups, positions, inp, generator=generator, dtype=torch.float64)
    g = torch.randn(11, groups, positions, out, generator=generator, dtype=torch.float64)
    queries = torch.randn(4, groups * out * inp, generator=generator, dtype=torch.float64)
    left = torch.randn(groups, out, out, generator=generator, dtype=torch.float64)
    G = explicit(a, g)
    for budget, rows in (
        (1, 512),
        (8 * inp * 11 * 2, 512),
        (8 * inp * 3, 3),
        (8 * groups * out * inp * 4, 4),
        (2**20, 5),
    ):
        monkeypatch.setattr(_products, "CHUNK_BYTES", budget)
        monkeypatch.setattr(_factored, "CHUNK_BYTES", budget)
        monkeypatch.setattr(_factored, "LAYOUT_BYTES", budget)
        monkeypatch.setattr(_products, "_LARGE", budget // 8)  # squares summed one by one, and all at once
        monkeypatch.setattr(_products, "CHUNK_ROWS", rows)
        out_ = torch.zeros(4, 11, dtype=torch.float64)
        torch.testing.assert_close(Factored(a, g).inner_(queries, out_), queries @ G.flatten(1).T)
        torch.testing.assert_close(
            squared_in_basis([Factored(a, g)], left, None), explicit(a, g, left).square().sum(0)
        )  # fmt: skip


@pytest.mark.parametrize("positions, form", [(1, "Repeated"), (2, "Factored"), (9, "Dense")])
@pytest.mark.parametrize("rotated", [False, True])
def test_batches_joined(positions, form, rotated):
    """In as few parts as their form allows, in the order in which they came."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    batches = []
    for rows in (3, 4):
        a = normal(2, 2, positions, 5).repeat_interleave(2, dim=0)[:rows]
        inputs = Inputs(lambda sources, some: sources[0][some], [a], a.shape)
        batches.append(Factored(inputs, normal(rows, 2, positions, 6)))
    left, right = (normal(2, 6, 6), normal(2, 5, 5)) if rotated else (None, None)
    expected = torch.cat([explicit(part.a, part.g, left, right) for part in batches])
    found = joined(batches, left, right)
    assert [type(part).__name__ for part in found] == [form] * (2 if form == "Factored" else 1)
    torch.testing.assert_close(torch.cat([part.matrix() for part in found]), expected)
    size = expected.numel() * 8
    for n_bytes, wholes in ((2 * size, 2), (2 * size - 1, 1), (size - 1, 0)):
        blocks = formed([found, found], n_bytes)
        if form == "Factored":
            assert sorted(len(parts) for parts in blocks) == [1] * wholes + [2] * (2 - wholes)
            assert sum(isinstance(parts[0], Dense) for parts in blocks) == wholes
        for parts in blocks:
            torch.testing.assert_close(torch.cat([part.matrix() for part in parts]), expected)
    root = normal(2, 6, 5)
    scaled = joined([Scaled(part, root) for part in batches])
    plain = torch.cat([explicit(part.a, part.g) for part in batches])
    torch.testing.assert_close(torch.cat([part.matrix() for part in scaled]), root * plain)
    assert {type(part.gradient).__name__ for part in scaled} == {form}


def test_a_row_is_met_once_for_all_its_columns():
    """Of 12 rows 3 inputs; and a coordinate in which no row has anything is not met at all."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(3, 1, 1, 200, generator=generator).repeat_interleave(4, dim=0)
    a[..., :8] = 1e-9  # what rounding leaves
    (found,) = joined([Factored(a, torch.randn(12, 1, 1, 7, generator=generator))])
    assert found.first.shape == (3, 1, 192)
    assert found.second.shape == (3, 1, 7, 4)


def test_what_is_no_number_stays_none():
    a, g = torch.ones(4, 1, 1, 3), torch.ones(4, 1, 1, 2)
    a[2, 0, 0, 1] = torch.nan
    (found,) = joined([Factored(a, g)])
    met = found.inner_(torch.ones(2, 6), torch.zeros(2, 4))
    assert met.isnan().tolist() == [[False, False, True, False]] * 2
    assert found.combined(torch.ones(1, 4)).isnan().any()


@pytest.mark.parametrize("laid_out", [True, False])
@pytest.mark.parametrize("sizes", [(3, 4, 1, 2), (1, 3, 2, 3), (1, 2, 5, 6), (2, 1, 3, 4)])
def test_chosen_columns_of_kept_rows(sizes, laid_out):
    """Of every row some columns, some of them several and some none; formed or not, and turned into a basis."""
    groups, positions, out, inp = sizes
    rng = torch.Generator().manual_seed(0)
    a = torch.randn(5, groups, positions, inp, generator=rng, dtype=torch.float64)
    inputs = a if laid_out else Inputs(lambda sources, rows: sources[0][rows], [a], a.shape)
    g = torch.randn(3, 5, groups, positions, out, generator=rng, dtype=torch.float64)
    rows, numbers = torch.tensor([0, 0, 0, 2, 4, 4]), torch.tensor([0, 1, 2, 1, 0, 2])
    factors = torch.rand(6, generator=rng, dtype=torch.float64)
    found = chosen([Factored(inputs, own) for own in g], rows, numbers, factors)
    expected = torch.einsum("i,igto,igtj->igoj", factors, g[numbers, rows], a[rows])
    torch.testing.assert_close(found.matrix(), expected)
    torch.testing.assert_close(found[2:5].matrix(), expected[2:5])
    right = torch.randn(groups, inp, inp, generator=rng, dtype=torch.float64)
    turned = joined([found[:4], found[4:]], None, right)
    torch.testing.assert_close(torch.cat([part.matrix() for part in turned]), expected @ right)
    torch.testing.assert_close(found.rotate(None, right)[1:].matrix(), (expected @ right)[1:])


@pytest.mark.parametrize("by_channels", [True, False])
@pytest.mark.parametrize("sizes", [(3, 9, 1, 2), (1, 8, 2, 3), (1, 2, 5, 6)])
def test_condensed_columns(sizes, by_channels):
    """Formed where that is fewer numbers, however the outputs' gradients lie in memory."""
    groups, positions, out, inp = sizes
    rng = torch.Generator().manual_seed(0)
    a = torch.randn(5, groups, positions, inp, generator=rng, dtype=torch.float64)
    g = torch.randn(3, 5, groups, positions, out, generator=rng, dtype=torch.float64)
    g = g.mT.contiguous().mT if by_channels else g
    found = condensed([Factored(a, own) for own in g])
    assert {type(own) for own in found} == {Dense if positions > 2 else Factored}
    for own, column in zip(found, g):
        torch.testing.assert_close(own.matrix(), explicit(a, column))


def test_second_moment_of_one_entry_per_position():
    """As of a depthwise convolution's outputs."""
    x = torch.randn(4, 3, 5, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.einsum("bgti,bgtj->gij", x, x)
    torch.testing.assert_close(_moments.second_moment([x[:1], x[1:]]), expected)
