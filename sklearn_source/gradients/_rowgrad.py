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

# Bytes of one materialised chunk of gradient matrices. Large enough for the matrix product that reads it to run at its
# full rate, small enough to stay in a shared last-level cache.
CHUNK_BYTES = 8 * 2**20
CHUNK_ROWS = 1024
# Least width of a tile of a symmetric product: narrower ones lose more rate than the mirror saves.
_TILE = 128
# Outputs of a product below which matrix libraries leave threads idle along the sum.
_FEW_OUTPUTS = 10_000


def _rotate_vectors(x, basis):
    """``x @ basis`` for x (B, G, T, d) and basis (G, d, d), as one matrix product where there is one group."""
    rows, groups, positions, width = x.shape
    if groups == 1:
        return (x.reshape(-1, width) @ basis[0]).view(rows, 1, positions, width)
    return torch.einsum("bgtd,gde->bgte", x, basis)


def _second_moment(x):
    """Sum over rows and positions of ``x x^T``: x (B, G, T, d) -> (G, d, d), a triangle of tiles and its mirror."""
    flat = x.permute(1, 0, 2, 3).reshape(x.shape[1], -1, x.shape[3])  # (G, B*T, d)
    width = flat.shape[2]
    tiles = min(8, width // _TILE)
    if tiles < 2:
        return flat.transpose(1, 2) @ flat
    moment = flat.new_empty((flat.shape[0], width, width))
    bounds = [width * i // tiles for i in range(tiles + 1)]
    for low, high in zip(bounds, bounds[1:]):
        moment[:, low:high, :high] = flat[:, :, low:high].transpose(1, 2) @ flat[:, :, :high]
        moment[:, :low, low:high] = moment[:, low:high, :low].transpose(1, 2)
    return moment


def _add_product(out, queries, matrices):
    """``out += queries @ matrices^T`` in place; long sums of few outputs are cut, so that all threads get a part."""
    width = queries.shape[1]
    parts = next((p for p in (4, 3, 2) if width % p == 0), 1)
    if parts == 1 or out.numel() > _FEW_OUTPUTS or width < parts * 1024:
        out.addmm_(queries, matrices.T)
        return
    left = queries.unflatten(1, (parts, -1)).transpose(0, 1)  # (parts, n_query, width / parts)
    right = matrices.unflatten(1, (parts, -1)).permute(1, 2, 0)
    out.add_(torch.bmm(left, right).sum(0))


def rotate_matrices(matrices, left, right):
    """``left^T M right`` for M (n, G, out, in); left (G, out, out) or None, right (G, in, in) or None.

    None stands for the identity. The product that shrinks the work of the other comes first by shape alone, so no
    order is chosen here: both cost ``n out in (out + in)`` multiplications together.
    """
    if right is not None:
        if matrices.shape[1] == 1:
            matrices = (matrices.reshape(-1, matrices.shape[3]) @ right[0]).view_as(matrices)
        else:
            matrices = matrices @ right
    if left is not None:
        matrices = left.transpose(1, 2) @ matrices
    return matrices


class Inputs:
    """A layer's inputs, laid out as ``a`` (B, groups, T, in) only while a product needs them.

    Unfolding a convolution's input repeats every value once per place of the kernel: kept as they came, gradients of
    many more rows fit into the same memory.
    """

    def __init__(self, lay_out, sources, shape):
        self._lay_out, self._sources, self.shape = lay_out, sources, tuple(shape)

    def __call__(self):
        return self._lay_out(self._sources)

    @property
    def sources(self):
        """The tensors held, which layers reading the same activations share."""
        return self._sources


@dataclass(frozen=True)
class Factored:
    """``G_n = sum_t g_nt a_nt^T`` with ``a`` (B, groups, T, in) and ``g`` (B, groups, T, out).

    ``inputs`` is ``a`` itself or the :class:`Inputs` that lay it out.
    """

    inputs: torch.Tensor | Inputs
    g: torch.Tensor

    @property
    def a(self):
        return self.inputs() if isinstance(self.inputs, Inputs) else self.inputs

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
        return [*(self.inputs.sources if isinstance(self.inputs, Inputs) else [self.inputs]), self.g]

    def __getitem__(self, rows):
        return Factored(self.a[rows], self.g[rows])

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
        return Factored(
            self.inputs if right is None else _rotate_vectors(self.a, right),
            self.g if left is None else _rotate_vectors(self.g, left),
        )

    def matrix(self, out=None):
        """(B, groups, out, in); written into ``out`` where one is given."""
        if self.n_positions == 1:  # a broadcast product streams; a batched rank-one matmul does not
            return torch.mul(self.g.transpose(2, 3), self.a, out=out)
        return torch.matmul(self.g.transpose(2, 3), self.a, out=out)

    def squared_norm(self):
        """(B,) squared Frobenius norms, through the (T, T) Gram matrices where those are smaller."""
        groups, out, inp = self.shape
        positions = self.n_positions
        if positions * (out + inp) < out * inp:
            a = self.a
            grams = (a @ a.transpose(2, 3)) * (self.g @ self.g.transpose(2, 3))
            return grams.sum((1, 2, 3)).clamp_min(0)
        return Dense(self.matrix()).squared_norm()

    def inner_(self, queries, out):
        """``out += queries @ vec(G)^T``: queries (n_query, groups*out*in), out (n_query, B), in place.

        The matrices are formed a slab at a time, some rows by some of their ``out`` lines, in one buffer: the product
        that reads it keeps many rows (its rate falls below some dozens) whatever the layer's size.
        """
        groups, n_out, n_in = self.shape
        rows = min(len(self), CHUNK_ROWS)
        lines = max(1, CHUNK_BYTES // (rows * groups * n_in * self.g.element_size()))
        if groups > 1 or lines >= n_out:  # a group's lines are not one stretch of the queries
            lines = n_out
            rows = max(1, min(len(self), CHUNK_BYTES // (groups * n_out * n_in * self.g.element_size())))
        buffer = self.g.new_empty(rows * groups * lines * n_in)
        whole = self.a
        for start in range(0, len(self), rows):
            a, g = whole[start : start + rows], self.g[start : start + rows]
            target = out[:, start : start + rows]
            for line in range(0, n_out, lines):
                part = Factored(a, g[..., line : line + lines])
                matrices = part.matrix(out=buffer[: len(a) * groups * part.g.shape[3] * n_in].view(len(a), *part.shape))
                columns = slice(line * n_in, line * n_in + matrices[0].numel())
                _add_product(target, queries[:, columns], matrices.view(len(a), -1))
        return out

    def rowwise_inner(self, vectors):
        """(B,) inner products of each row's gradient with its own ``vectors[n]`` (groups*out*in)."""
        return Dense(self.matrix()).rowwise_inner(vectors)

    def input_moment(self):
        """Sum over rows and positions of ``a a^T`` (groups, in, in)."""
        return _second_moment(self.a)

    def output_moment(self):
        """Sum over rows and positions of ``g g^T`` (groups, out, out)."""
        return _second_moment(self.g)


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
        _add_product(out, queries, self.G.flatten(1))
        return out

    def rowwise_inner(self, vectors):
        return (self.G.flatten(1) * vectors).sum(1)

    def input_moment(self):
        """Sum over rows of ``G^T G``: the block that has no factored form takes its covariances from G itself."""
        return _second_moment(self.G)

    def output_moment(self):
        """Sum over rows of ``G G^T``."""
        return _second_moment(self.G.transpose(2, 3))

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
    return Factored(
        torch.cat([gradient.a for gradient in gradients], dim=2),
        torch.cat([gradient.g * weight for gradient, weight in zip(gradients, weights)], dim=2),
    )


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
        a = first.a if right is None else _rotate_vectors(first.a, right)
        squares = sum((c.g if left is None else _rotate_vectors(c.g, left)).square() for c in columns)
        return squares[:, :, 0].permute(1, 2, 0) @ a[:, :, 0].square().transpose(0, 1)
    by_tokens = first.token_rotation_cost(left, right) + groups * out * inp * first.n_positions
    tokens = by_tokens <= first.product_rotation_cost(left, right)
    a = _rotate_vectors(first.a, right) if tokens and right is not None else first.a
    step = max(1, CHUNK_BYTES // (groups * out * inp * a.element_size()))
    total = a.new_zeros((groups, out, inp))
    for column in columns:
        g = _rotate_vectors(column.g, left) if tokens and left is not None else column.g
        rotated = Factored(a, g)
        for start in range(0, len(column), step):
            matrices = rotated[start : start + step].matrix()
            if not tokens:
                matrices = rotate_matrices(matrices, left, right)
            total += matrices.square_().sum(0)
    return total


def held_bytes(gradients):
    """Bytes of all the tensors that some gradients hold, those sharing memory counted once."""
    held = {t.data_ptr(): t.numel() * t.element_size() for gradient in gradients for t in gradient.tensors()}
    return sum(held.values())
