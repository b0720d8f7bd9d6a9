"""Per-row gradients of one block of parameters as a small algebra.

A block's gradient for row ``n`` is a matrix ``G_n`` of shape ``(groups, out, in)``; ``groups`` is 1 but for grouped
convolutions, whose curvature is block diagonal over the groups. Three forms share one interface:

- :class:`Factored`: ``G_n = sum_t g_nt a_nt^T`` over positions ``t``, never materialised unless that is cheaper;
- :class:`Dense`: the matrices themselves;
- :class:`Indexed`: the columns of an embedding's table that a row looked up (``_indexed.py``).

Everything that has to be fast about per-row gradients lives in these files and only there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ._indexed import Indexed
from ._inputs import Inputs, held, join_inputs, laid_out
from ._moments import overlapping_moment, second_moment
from ._products import (
    CHUNK_BYTES,
    LAYOUT_BYTES,
    add_product,
    add_squares,
    aligned,
    even_chunks,
    rotate_matrices,
    rotate_vectors,
    slab_plan,
)


@dataclass(frozen=True)
class Factored:
    """``G_n = sum_t g_nt a_nt^T`` with ``a`` (B, groups, T, in) and ``g`` (B, groups, T, out).

    ``inputs`` is ``a`` itself or the :class:`Inputs` that lay it out.
    """

    inputs: torch.Tensor | Inputs
    g: torch.Tensor

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
        """(groups, out, in) of one row's matrix."""
        return (self.g.shape[1], self.g.shape[3], self.inputs.shape[3])

    def tensors(self):
        """The tensors held, for counting memory."""
        return [*held(self.inputs), self.g]

    def __getitem__(self, rows):
        """Some rows, a slice; nothing is laid out."""
        return Factored(self.inputs[rows], self.g[rows])

    def pieces(self):
        """The rows in slices, and for each the gradient of those rows with its inputs laid out, which are small."""
        groups, out, inp = self.shape
        per_row = groups * self.n_positions * max(out, inp) * self.g.element_size()
        for rows in even_chunks(len(self), LAYOUT_BYTES // per_row):
            part = self[rows]
            yield rows, Factored(part.a, part.g)

    def token_rotation_cost(self, left, right):
        """Multiplications per row to rotate every position's vectors."""
        groups, out, inp = self.shape
        return (
            groups
            * self.n_positions
            * ((inp * inp if right is not None else 0) + (out * out if left is not None else 0))
        )

    def product_rotation_cost(self, left, right):
        """Multiplications per row to form the matrix and to rotate it."""
        groups, out, inp = self.shape
        rotation = (inp if right is not None else 0) + (out if left is not None else 0)
        return groups * out * inp * (rotation + self.n_positions)

    def rotate(self, left, right):
        """The gradient in another basis, ``left^T G right``, by the cheaper of the two ways."""
        if left is None and right is None:
            return self
        groups, out, inp = self.shape
        tokens = self.token_rotation_cost(left, right) + groups * out * inp * self.n_positions
        if tokens > self.product_rotation_cost(left, right):
            return Dense(rotate_matrices(self.matrix(), left, right))
        return self.rotate_tokens(left, right)

    def rotate_tokens(self, left, right):
        """The gradient in another basis, still factored: no matrix per row is held."""
        inputs = self.inputs
        if right is not None:
            inputs = inputs.rotated(right) if isinstance(inputs, Inputs) else rotate_vectors(inputs, right)
        return Factored(inputs, self.g if left is None else rotate_vectors(self.g, left))

    def matrix(self, out=None):
        """(B, groups, out, in); written into ``out``, a contiguous tensor, where one is given."""
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
        """(B,) squared Frobenius norms, through the (T, T) Gram matrices where those are smaller."""
        groups, out, inp = self.shape
        if self.n_positions * (out + inp) >= out * inp:
            return Dense(self.matrix()).squared_norm()
        norms = self.g.new_empty(len(self))
        for rows, part in self.pieces():
            grams = (part.a @ part.a.transpose(2, 3)) * (part.g @ part.g.transpose(2, 3))
            norms[rows] = grams.sum((1, 2, 3)).clamp_min(0)
        return norms

    def inner_(self, queries, out):
        """``out += queries @ vec(G)^T``: queries (n_query, groups*out*in), out (n_query, B), in place.

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

    def rowwise_inner(self, vectors):
        """(B,) inner products of each row's gradient with its own ``vectors[n]`` (groups*out*in)."""
        return Dense(self.matrix()).rowwise_inner(vectors)

    def input_moment(self):
        """Sum over rows and positions of ``a a^T`` (groups, in, in)."""
        chunks = (part.a for _, part in self.pieces())
        overlap = getattr(self.inputs, "overlap", None)
        return overlapping_moment(chunks, overlap) if overlap is not None and overlap.pays else second_moment(chunks)

    def output_moment(self):
        """Sum over rows and positions of ``g g^T`` (groups, out, out)."""
        per_row = self.g[:1].numel() * self.g.element_size()
        return second_moment(self.g[rows] for rows in even_chunks(len(self), LAYOUT_BYTES // per_row))


@dataclass(frozen=True)
class Dense:
    """The matrices ``G`` (B, groups, out, in) themselves."""

    G: torch.Tensor

    def __len__(self):
        return self.G.shape[0]

    @property
    def shape(self):
        return tuple(self.G.shape[1:])

    def tensors(self):
        return [self.G]

    def __getitem__(self, rows):
        return Dense(self.G[rows])

    def rotate(self, left, right):
        return Dense(rotate_matrices(self.G, left, right))

    def product_rotation_cost(self, left, right):
        groups, out, inp = self.shape
        return groups * out * inp * ((inp if right is not None else 0) + (out if left is not None else 0))

    token_rotation_cost = product_rotation_cost
    rotate_tokens = rotate

    def matrix(self, out=None):
        return self.G if out is None else out.copy_(self.G)

    def chunks(self):
        """Itself: it is formed."""
        yield self

    def scaled(self, root):
        """``root * G_n`` element by element, ``root`` (groups, out, in)."""
        return Dense(self.G * root)

    def squared_norm(self):
        return self.G.flatten(1).square().sum(1)

    def inner_(self, queries, out):
        add_product(out, queries, self.G.flatten(1))
        return out

    def rowwise_inner(self, vectors):
        return (self.G.flatten(1) * vectors).sum(1)

    def input_moment(self):
        """Sum over rows of ``G^T G``: the block that has no factored form takes its covariances from G itself."""
        return second_moment([self.G])

    def output_moment(self):
        """Sum over rows of ``G G^T``."""
        return second_moment([self.G.transpose(2, 3)])

    def moments(self, wanted_input, wanted_output):
        """:meth:`input_moment` and :meth:`output_moment`, None where not wanted."""
        return self.input_moment() if wanted_input else None, self.output_moment() if wanted_output else None


def weighted_sum(gradients, weights):
    """``sum_c w_c G_c`` of the same rows at several checkpoints, still factored where they are.

    The checkpoints of a segment become further positions, so that their sum meets the queries once.
    """
    if isinstance(gradients[0], Dense):
        total = gradients[0].G * weights[0]
        for gradient, weight in zip(gradients[1:], weights[1:]):
            total.add_(gradient.G, alpha=weight)
        return Dense(total)
    if isinstance(gradients[0], Indexed):
        return Indexed(
            torch.cat([gradient.tokens for gradient in gradients], dim=1),
            torch.cat([gradient.g * weight for gradient, weight in zip(gradients, weights)], dim=1),
            gradients[0].n_tokens,
        )
    if len(gradients) == 1:
        only = gradients[0]
        return only if weights[0] == 1 else Factored(only.inputs, only.g * weights[0])
    inputs = join_inputs([gradient.inputs for gradient in gradients])
    return Factored(inputs, torch.cat([gradient.g * weight for gradient, weight in zip(gradients, weights)], dim=2))


def squared_in_basis(columns, left, right):
    """Sum over rows and Fisher columns of ``(left^T G right)^2``, elementwise: (groups, out, in).

    Parameters
    ----------
    columns : list of Factored, of Indexed, or of Dense or Formed
        The gradients of the same rows for each column of the Fisher's root; factored ones share their inputs ``a``.
    left, right : tensor of shape (groups, out, out) and (groups, in, in), or None
        The eigenbases; None stands for the identity.
    """
    first = columns[0]
    groups, out, inp = first.shape
    if isinstance(first, Indexed):
        total = first.g.new_zeros(first.shape)
        for column in columns:
            column.add_squares_(total, left)
        return total
    if not isinstance(first, Factored):
        chunks = (chunk for column in columns for chunk in column.chunks())
        return sum(chunk.rotate(left, right).G.square().sum(0) for chunk in chunks)
    if first.n_positions == 1:
        # One position: (g a^T)^2 = g^2 (a^2)^T, so rows and columns are summed by one matrix product per group.
        a = first.a if right is None else rotate_vectors(first.a, right)
        squares = sum((c.g if left is None else rotate_vectors(c.g, left)).square() for c in columns)
        return squares[:, :, 0].permute(1, 2, 0) @ a[:, :, 0].square().transpose(0, 1)
    by_tokens = first.token_rotation_cost(left, right) + groups * out * inp * first.n_positions
    tokens = by_tokens <= first.product_rotation_cost(left, right)
    right = aligned(right)
    total = first.g.new_zeros((groups, out, inp if right is None else right.shape[2]))
    step = CHUNK_BYTES // (total.numel() * total.element_size())
    for rows, part in first.pieces():
        a = rotate_vectors(part.a, right) if tokens and right is not None else part.a
        for column in columns:
            g = column.g[rows]
            if tokens and left is not None:
                g = rotate_vectors(g, left)
            for some in even_chunks(len(g), step):
                matrices = Factored(a[some], g[some]).matrix()
                if not tokens:
                    matrices = rotate_matrices(matrices, left, right)
                add_squares(total, matrices)
    return total[..., :inp]


def held_bytes(gradients):
    """Bytes of all the tensors that some gradients hold, those sharing memory counted once."""
    held = {t.data_ptr(): t.numel() * t.element_size() for gradient in gradients for t in gradient.tensors()}
    return sum(held.values())
