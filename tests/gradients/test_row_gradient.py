"""Every form of a per-row gradient keeps the whole protocol and agrees with its matrices, for drawn shapes."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from sklearn_source.gradients.algebra import (
    Dense,
    Factored,
    Indexed,
    Inputs,
    RowGradient,
    Scaled,
    _factored,
    _repeated,
    _row_gradient,
    squared_in_basis,
    weighted_sum,
    whole_moments,
)

# Some columns of one form; their matrices; factors with ``G = sum_t g_t a_t^T`` where the form has some; two rotations.
Problem = namedtuple("Problem", "columns matrices a gs left right normal")


def product(a, g):
    return torch.einsum("bgto,bgti->bgoi", g, a)


def dense(draw, a, gs, normal):
    matrices = [product(a, g) for g in gs]
    return [Dense(G) for G in matrices], matrices, None


def factored(draw, a, gs, normal):
    if draw(st.booleans()):  # as gradients come from autograd: not contiguous
        a, gs = a.transpose(2, 3).contiguous().transpose(2, 3), [g.mT.contiguous().mT for g in gs]
    return [Factored(a, g) for g in gs], [product(a, g) for g in gs], a


def laid_out_later(draw, a, gs, normal):
    inputs = Inputs(lambda sources, rows: sources[0][rows], [a], a.shape)
    return [Factored(inputs, g) for g in gs], [product(a, g) for g in gs], a


def indexed(draw, a, gs, normal):
    rows, _, positions, table = a.shape
    tokens = torch.tensor(
        draw(st.lists(st.integers(0, table - 1), min_size=rows * positions, max_size=rows * positions))
    )
    tokens = tokens.view(rows, positions)
    a = torch.nn.functional.one_hot(tokens, table).double().unsqueeze(1)
    gs = [g[:, :1] for g in gs]
    return [Indexed(tokens, g[:, 0], table) for g in gs], [product(a, g) for g in gs], a


def repeated(draw, a, gs, normal):
    """Fisher columns: rows that come several times, and coordinates in which none has anything."""
    a = a.repeat_interleave(draw(st.integers(1, 4)), dim=0)[: len(a)]
    a[..., : draw(st.integers(0, 2))] = 0.0
    for g in gs:
        g[..., draw(sizes) :] = 0.0
    return [_repeated.Repeated.of([Factored(a, g)]) for g in gs], [product(a, g) for g in gs], a


def scaled(draw, a, gs, normal):
    form = draw(st.sampled_from([dense, factored, laid_out_later, indexed, *([repeated] if a.shape[2] == 1 else [])]))
    columns, matrices, _ = form(draw, a, gs, normal)
    root = normal(*columns[0].shape)
    return [Scaled(column, root) for column in columns], [G * root for G in matrices], None


FORMS = {form.__name__: form for form in (dense, factored, laid_out_later, indexed, repeated, scaled)}
sizes = st.integers(1, 5)


@st.composite
def problems(draw, form):
    rows, groups, out, inp = (draw(sizes) for _ in range(4))
    # Far more than out or in, too: every branch of the cost rules.
    positions = 1 if form == "repeated" else draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    a = normal(rows, groups, positions, inp)
    gs = [normal(rows, groups, positions, out) for _ in range(draw(st.integers(1, 3)))]
    columns, matrices, a = FORMS[form](draw, a, gs, normal)
    groups, out, inp = columns[0].shape
    left = normal(groups, out, out) if draw(st.booleans()) else None
    right = normal(groups, inp, inp) if draw(st.booleans()) and form != "indexed" else None
    gs = [g[:, :groups] for g in gs]
    return Problem(columns, matrices, a, gs, left, right, normal)


def rotated(G, left, right):
    if left is not None:
        G = torch.einsum("gpo,bgpi->bgoi", left, G)
    return G if right is None else torch.einsum("bgoj,gji->bgoi", G, right)


def test_all_forms_are_here():
    """A new form has to be added to ``FORMS``."""
    assert set(RowGradient.__subclasses__()) == {Dense, Factored, Indexed, _repeated.Repeated, Scaled}
    for form in RowGradient.__subclasses__():
        assert not form.__abstractmethods__


def test_a_form_that_lacks_a_method_cannot_be_made():
    missing = {"__len__", "__getitem__", "shape", "tensors", "matrix", "rotate", "scaled", "weighted_sum"}
    assert RowGradient.__abstractmethods__ == missing
    with pytest.raises(TypeError, match="abstract"):
        type("Half", (RowGradient,), {"__len__": lambda self: 0})()


def check_compressions(draw, gradient, G, normal):
    """Buckets, single entries and narrow rotations, with chunks of all sizes."""
    rows, groups, out, inp = G.shape
    size = groups * out * inp
    index = torch.tensor(draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=9)))
    buckets = torch.tensor(draw(st.lists(st.integers(0, 2), min_size=size, max_size=size)))
    left = normal(groups, out, draw(sizes)) if draw(st.booleans()) else None
    right = normal(groups, inp, draw(sizes)) if draw(st.booleans()) else None
    with pytest.MonkeyPatch.context() as patch:
        for module in (_row_gradient, _factored):
            patch.setattr(module, "CHUNK_BYTES", draw(st.integers(1, 4000)))
        found = gradient.entries(index), gradient.bucketed(buckets, 3), gradient.compressed(left, right)
    assert_close(found[0], G.flatten(1)[:, index])
    assert_close(found[1], G.flatten(1) @ torch.nn.functional.one_hot(buckets, 3).double())
    G = G if left is None else torch.einsum("gpo,bgpi->bgoi", left, G)
    assert_close(found[2], G if right is None else torch.einsum("bgoj,gji->bgoi", G, right))


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_one_gradient(form, data):
    p = data.draw(problems(form))
    gradient, G = p.columns[0], p.matrices[0]
    rows, *shape = G.shape
    assert isinstance(gradient, RowGradient)
    assert len(gradient) == rows
    assert gradient.shape == tuple(shape)
    assert gradient.has_factors == (p.a is not None)
    assert gradient.n_positions == (1 if p.a is None else p.a.shape[2])
    assert gradient.tensors()[-1].dtype == torch.float64
    assert_close(gradient.matrix(), G)
    into = torch.full_like(G, 7.0)
    assert gradient.matrix(out=into) is into
    assert_close(into, G)
    assert_close(gradient[1:].matrix(), G[1:])
    assert type(gradient[1:]) is type(gradient)
    root = p.normal(*shape)
    assert_close(gradient.scaled(root).matrix(), root * G)
    expected = rotated(G, p.left, p.right)
    assert_close(gradient.rotate(p.left, p.right).matrix(), expected)
    assert_close(gradient.rotate_factors(p.left, p.right).matrix(), expected)
    assert gradient.rotate_factors(p.left, p.right).has_factors == gradient.has_factors
    assert gradient.rotation_cost(None, None) == 0
    assert gradient.rotation_cost(p.left, p.right) == gradient.rotation_cost(p.left, None) + gradient.rotation_cost(
        None, p.right
    )
    assert_close(gradient.squared_norm(), torch.einsum("bgoi,bgoi->b", G, G))
    check_compressions(data.draw, gradient, G, p.normal)
    own, queries, start = p.normal(rows, G[0].numel()), p.normal(3, G[0].numel()), p.normal(3, rows)
    assert_close(gradient.rowwise_inner(own), torch.einsum("bk,bk->b", own, G.flatten(1)))
    total = start.clone()
    assert gradient.inner_(queries, total) is total
    assert_close(total, start + torch.einsum("qk,bk->qb", queries, G.flatten(1)))
    weights = p.normal(4, rows)
    summed = gradient.combined(weights)
    assert_close(summed, torch.einsum("kb,bgoi->kgoi", weights, G))
    # The transpose of inner_.
    inner = gradient.inner_(queries, torch.zeros(3, rows, dtype=torch.float64))
    assert_close(queries @ summed.flatten(1).T, inner @ weights.T)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), budget=st.sampled_from([1, 300, 2**23]))
def test_matrices_come_in_chunks(form, data, budget):
    p = data.draw(problems(form))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_row_gradient, "CHUNK_BYTES", budget)
        chunks = list(p.columns[0].matrix_chunks())
        assert [n for rows, _ in chunks for n in range(rows.start, rows.stop)] == list(range(len(p.columns[0])))
        assert_close(torch.cat([matrices for _, matrices in chunks]), p.matrices[0])
        squares = squared_in_basis(p.columns, p.left, p.right)
        weights = p.normal(2, len(p.columns[0]))
        assert_close(p.columns[0].combined(weights), torch.einsum("kb,bgoi->kgoi", weights, p.matrices[0]))
    assert_close(squares, sum(rotated(G, p.left, p.right).square().sum(0) for G in p.matrices))


def same_moment(moment, expected):
    """Some forms have the diagonal alone."""
    assert_close(moment, expected.diagonal(dim1=1, dim2=2) if moment.dim() == 2 else expected)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), wanted=st.tuples(st.booleans(), st.booleans()))
def test_moments(form, data, wanted):
    p = data.draw(problems(form))
    inputs = [torch.einsum("bgoi,bgoj->gij", G, G) for G in p.matrices]
    outputs = [torch.einsum("bgoi,bgpi->gop", G, G) for G in p.matrices]
    for moments, expected in (
        (p.columns[0].moments(*wanted), (inputs[0], outputs[0])),
        (whole_moments(p.columns, *wanted), (sum(inputs), sum(outputs))),
    ):
        for moment, exact, asked in zip(moments, expected, wanted, strict=True):
            assert (moment is not None) == asked
            if asked:
                same_moment(moment, exact)
    gradient = p.columns[0]
    if p.a is not None:  # those of the factors, summed over positions too
        inputs, outputs = ([torch.einsum("bgti,bgtj->gij", x, x)] for x in (p.a, p.gs[0]))
    same_moment(gradient.input_moment(), inputs[0])
    assert_close(gradient.output_moment(), outputs[0])


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), weights=st.lists(st.floats(0.01, 2), min_size=3, max_size=3))
def test_weighted_sums_over_checkpoints(form, data, weights):
    p = data.draw(problems(form))
    held = [[t.clone() for t in column.tensors()] for column in p.columns]
    summed = weighted_sum(p.columns, weights)
    expected = rotated(sum(w * G for w, G in zip(weights, p.matrices)), p.left, p.right)
    assert_close(summed.rotate_factors(p.left, p.right).matrix(), expected)
    assert_close(summed.rotate(p.left, p.right).matrix(), expected)
    assert summed.n_positions == (p.a.shape[2] * len(p.columns) if summed.has_factors else 1)
    for column, before in zip(p.columns, held):  # used again by the next segment
        assert all(torch.equal(t, b) for t, b in zip(column.tensors(), before, strict=True))
