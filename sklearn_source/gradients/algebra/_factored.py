"""Per-row gradients as sums of outer products over positions, the form that layers of weights give.

Everything that has to be fast about them lives in this room and only there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ._dense import Dense
from ._inputs import Inputs, held, join_inputs, laid_out
from ._moments import moments_by_grams, overlapping_moment, second_moment
from ._products import (
    BUCKETED_ROWS,
    CHUNK_BYTES,
    ENTRY_COST,
    LAYOUT_BYTES,
    add_product,
    add_squares,
    aligned,
    even_chunks,
    rotate_matrices,
    rotate_vectors,
    slab_plan,
    steady_product,
)
from ._row_gradient import RowGradient, added
from ._scaled import Scaled


@dataclass(frozen=True)
class Factored(RowGradient):
    """``G_n = sum_t g_nt a_nt^T`` with ``a`` (B, groups, T, in) and ``g`` (B, groups, T, out).

    ``inputs`` is ``a`` itself or the :class:`Inputs` that lay it out.
    """

    inputs: torch.Tensor | Inputs
    g: torch.Tensor
    has_factors = True

    @property
    def a(self):
        return laid_out(self.inputs)

    def __len__(self):
        return self.g.shape[0]

    @property
    def n_positions(self):
        return self.g.shape[2]

    @property
    def shape(self):
        return (self.g.shape[1], self.g.shape[3], self.inputs.shape[3])

    @property
    def smaller_as_matrices(self):
        """Whether the matrices are no more numbers than the factors."""
        _, n_out, n_in = self.shape
        return n_out * n_in <= self.n_positions * (n_out + n_in)

    def tensors(self):
        return [*held(self.inputs), self.g]

    def __getitem__(self, rows):
        return Factored(self.inputs[rows], self.g[rows])

    def pieces(self):
        """The rows in slices, and for each the gradient of those rows with its inputs laid out, which are small."""
        for rows in even_chunks(len(self), self._rows_laid_out()):
            part = self[rows]
            yield rows, Factored(part.a, part.g)

    def _rows_laid_out(self):
        groups, out, inp = self.shape
        return LAYOUT_BYTES // (groups * self.n_positions * max(out, inp) * self.g.element_size())

    def rotation_cost(self, left, right):
        groups, out, inp = self.shape
        squares = (inp * inp if right is not None else 0) + (out * out if left is not None else 0)
        return groups * self.n_positions * squares

    def _factors_pay(self, left, right):
        """Whether rotating every position's vectors multiplies no more than rotating the matrices formed of them."""
        return self.rotation_cost(left, right) <= super().rotation_cost(left, right)

    def rotate(self, left, right):
        if left is None and right is None:
            return self
        if self._factors_pay(left, right):
            return self.rotate_factors(left, right)
        return Dense(rotate_matrices(self.matrix(), left, right))

    def rotate_factors(self, left, right):
        inputs = self.inputs
        if right is not None:
            inputs = inputs.rotated(right) if isinstance(inputs, Inputs) else rotate_vectors(inputs, right)
        return Factored(inputs, self.g if left is None else rotate_vectors(self.g, left))

    def scaled(self, root):
        return Scaled(self, root)

    def matrix(self, out=None):
        if out is None:
            out = self.g.new_empty((len(self), *self.shape))
        for rows, part in self.pieces():
            g = part.g.transpose(2, 3)
            if self.n_positions == 1:  # a broadcast product streams; a batched rank-one matmul does not
                torch.mul(g, part.a, out=out[rows])
            else:
                torch.bmm(g.flatten(0, 1), part.a.flatten(0, 1), out=out[rows].view(-1, *out.shape[2:]))
        return out

    def squared_norm(self):
        """Through the (T, T) Gram matrices where those are smaller."""
        groups, out, inp = self.shape
        if self.n_positions * (out + inp) >= out * inp:
            return super().squared_norm()
        norms = self.g.new_empty(len(self))
        for rows, part in self.pieces():
            grams = (part.a @ part.a.transpose(2, 3)) * (part.g @ part.g.transpose(2, 3))
            norms[rows] = grams.sum((1, 2, 3)).clamp_min(0)
        return norms

    def inner_(self, queries, out):
        """The protocol's, of slabs.

        The matrices are formed a slab at a time, some rows by some of their ``out`` lines, in one buffer: the product
        that reads it keeps many rows (its rate falls below some dozens) whatever the layer's size.
        """
        itemsize = self.g.element_size()
        n_rows, n_lines = slab_plan(len(self), self.shape, self.n_positions, len(queries), itemsize)
        groups, n_out, n_in = self.shape
        buffer = self.g.new_empty(n_rows * groups * n_lines * n_in)
        for rows in even_chunks(len(self), n_rows):
            part = self[rows]
            if n_lines < n_out:  # the inputs are read again for every slab
                part = Factored(part.a, part.g)
            for lines in even_chunks(n_out, n_lines):
                slab = Factored(part.inputs, part.g[..., lines])
                size = groups * slab.shape[1] * n_in
                matrices = slab.matrix(out=buffer[: len(slab) * size].view(len(slab), *slab.shape))
                start = lines.start * n_in
                add_product(out[:, rows], queries[:, start : start + size], matrices.view(len(slab), size))
        return out

    def meeting_cost(self, n_queries):
        """The protocol's, and the matrices formed."""
        groups, n_out, n_in = self.shape
        return (n_queries + self.n_positions) * groups * n_out * n_in

    def dyads(self, left, right):
        """The protocol's, of the factors: ``sum_t (u . g_t) (w . a_t)``; positions first, so that sums are of rows."""
        met = self.g.new_zeros((left.shape[1], len(self)))
        step = 2 * CHUNK_BYTES // max(1, met[:, :1].numel() * self.n_positions * met.element_size())
        for rows in even_chunks(len(self), min(step, self._rows_laid_out())):
            part = self[rows]
            part = Factored(part.a, part.g)
            for group in range(self.shape[0]):
                a, g = (x[:, group].transpose(0, 1).flatten(0, 1) for x in (part.a, part.g))  # (T rows, in or out)
                products = steady_product(right[group], a.T).mul_(steady_product(left[group], g.T))
                met[:, rows] += products.view(len(met), self.n_positions, len(part)).sum(1)
        return met

    def dyad_cost(self):
        groups, n_out, n_in = self.shape
        return groups * self.n_positions * (n_out + n_in + ENTRY_COST)

    def combined(self, weights):
        """The protocol's; of one position as a single product per group, of several by slabs as :meth:`inner_`."""
        groups, n_out, n_in = self.shape
        n_sums, itemsize = len(weights), self.g.element_size()
        total = self.g.new_zeros((n_sums, groups, n_out, n_in))
        if self.n_positions == 1:
            step = max(1, CHUNK_BYTES // (n_sums * n_out * itemsize))
            for rows in even_chunks(len(self), step):
                part = self[rows]
                a = part.a
                for group in range(groups):
                    left = weights[:, None, rows] * part.g[:, group, 0].T  # (n_sums, out, rows)
                    total[:, group] += (left.flatten(0, 1) @ a[:, group, 0]).view(n_sums, n_out, n_in)
            return total
        n_rows, n_lines = slab_plan(len(self), self.shape, self.n_positions, n_sums, itemsize)
        flat, buffer = total.view(n_sums, -1), self.g.new_empty(n_rows * groups * n_lines * n_in)
        for rows in even_chunks(len(self), n_rows):
            part = self[rows]
            if n_lines < n_out:  # then there is one group
                part = Factored(part.a, part.g)
            for lines in even_chunks(n_out, n_lines):
                slab = Factored(part.inputs, part.g[..., lines])
                size = groups * slab.shape[1] * n_in
                matrices = slab.matrix(out=buffer[: len(slab) * size].view(len(slab), *slab.shape))
                start = lines.start * n_in
                flat[:, start : start + size].addmm_(weights[:, rows], matrices.view(len(slab), size))
        return total

    def bucketed(self, buckets, n_buckets):
        """The protocol's; lines of some rows at a time, rows last: an entry of all of them is added at once."""
        groups, n_out, n_in = self.shape
        buckets = buckets.view(groups, n_out, n_in)
        found = self.g.new_empty((len(self), n_buckets))
        for rows in even_chunks(len(self), BUCKETED_ROWS):
            part = self[rows]
            total, inputs = self.g.new_zeros((n_buckets, len(part))), part.a
            step = CHUNK_BYTES // (len(part) * n_in * self.g.element_size())
            for group in range(groups):
                a, g = inputs[:, group], part.g[:, group]  # (rows, T, in or out)
                if self.n_positions == 1:
                    a, g = a[:, 0].T.contiguous(), g[:, 0].T.contiguous()
                for lines in even_chunks(n_out, step):
                    if self.n_positions == 1:
                        slab = (g[lines, None] * a).flatten(0, 1)
                    else:
                        slab = (g[..., lines].mT @ a).flatten(1).T.contiguous()
                    total.index_add_(0, buckets[group, lines].flatten(), slab)
            found[rows] = total.T
        return found

    def entries(self, index):
        """The protocol's, of the factors' entries alone."""
        groups, n_out, n_in = self.shape
        group, place = index // (n_out * n_in), index % (n_out * n_in)
        found = self.g.new_empty((len(self), len(index)))
        step = CHUNK_BYTES // max(1, self.n_positions * len(index) * self.g.element_size())
        for rows in even_chunks(len(self), step):
            part = self[rows]
            a = part.a.transpose(1, 2)[:, :, group, place % n_in]  # (rows, T, n)
            found[rows] = (part.g.transpose(1, 2)[:, :, group, place // n_in] * a).sum(1)
        return found

    def input_moment(self):
        chunks = (part.a for _, part in self.pieces())
        overlap = getattr(self.inputs, "overlap", None)
        return overlapping_moment(chunks, overlap) if overlap is not None and overlap.pays else second_moment(chunks)

    def output_moment(self):
        return self.output_moments([self])

    @classmethod
    def output_moments(cls, columns):
        per_row = columns[0].g[:1].numel() * columns[0].g.element_size()
        chunks = even_chunks(len(columns[0]), LAYOUT_BYTES // max(1, per_row))
        return second_moment(column.g[rows] for column in columns for rows in chunks)

    @classmethod
    def whole_moments(cls, columns, wanted_input, wanted_output):
        first = columns[0]
        if not first._grams_pay():
            return super().whole_moments(columns, wanted_input, wanted_output)
        sums = (None, None)
        for rows, part in first.pieces():
            gs = [column.g[rows] for column in columns]
            sums = added(sums, moments_by_grams(part.a, gs, wanted_input, wanted_output))
        return sums

    def _grams_pay(self):
        """Whether the (T, T) Gram matrices of a row's vectors are less work than its matrix and the squares of that."""
        (_, out, inp), T = self.shape, self.n_positions
        return 2 * T * T * (out + inp) + T * (inp * inp + out * out) < out * inp * (T + (inp + out) / 2)

    @classmethod
    def squared_in_basis(cls, columns, left, right):
        first = columns[0]
        groups, out, inp = first.shape
        if first.n_positions == 1:
            # One position: (g a^T)^2 = g^2 (a^2)^T, so rows and columns are summed by one matrix product per group.
            a = first.a if right is None else rotate_vectors(first.a, right)
            squares = sum((c.g if left is None else rotate_vectors(c.g, left)).square() for c in columns)
            return squares[:, :, 0].permute(1, 2, 0) @ a[:, :, 0].square().transpose(0, 1)
        by_factors = first._factors_pay(left, right)
        right = aligned(right)
        total = first.g.new_zeros((groups, out, inp if right is None else right.shape[2]))
        step = CHUNK_BYTES // (total.numel() * total.element_size())
        for rows, part in first.pieces():
            a = rotate_vectors(part.a, right) if by_factors and right is not None else part.a
            if out == 1 and left is None and not by_factors:  # depthwise: columns are lines of one matrix
                lines = Factored(a, torch.cat([column.g[rows] for column in columns], dim=3)).matrix()
                total += rotate_matrices(lines, None, right).square().sum((0, 2)).unsqueeze(1)
                continue
            for column in columns:
                g = column.g[rows]
                if by_factors and left is not None:
                    g = rotate_vectors(g, left)
                for some in even_chunks(len(g), step):
                    matrices = Factored(a[some], g[some]).matrix()
                    if not by_factors:
                        matrices = rotate_matrices(matrices, left, right)
                    add_squares(total, matrices)
        return total[..., :inp]

    @classmethod
    def weighted_sum(cls, gradients, weights):
        if len(gradients) == 1:
            only = gradients[0]
            return only if weights[0] == 1 else Factored(only.inputs, only.g * weights[0])
        inputs = join_inputs([gradient.inputs for gradient in gradients])
        return Factored(inputs, torch.cat([gradient.g * weight for gradient, weight in zip(gradients, weights)], dim=2))
