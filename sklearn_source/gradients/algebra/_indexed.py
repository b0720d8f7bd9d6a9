"""Per-row gradients of an embedding: the lines of the table that a row looked up, and the gradients of what it got."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ._products import ENTRY_COST, add_product, steady_product
from ._row_gradient import RowGradient

# Bytes of the formed matrices of some rows at a time, over the tokens that occur in them. More rows read more columns
# at once, but each meets the tokens of all the others.
# Formed matrices of some rows' tokens: below what the allocator asks the system for, not a memory budget.
CHUNK_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Indexed(RowGradient):
    """``G_n = sum_t g_nt e(token_nt)^T``: a (1, d, V) matrix of which few columns are not zero.

    Attributes
    ----------
    tokens : tensor of int64 (B, T)
        A token may come several times in a row; then its gradients add up.
    g : tensor (B, T, d)
    n_tokens : int
        V, the length of the table.

    Notes
    -----
    The input's side keeps its own coordinates: the second moment of one-hot vectors is diagonal.
    """

    tokens: torch.Tensor
    g: torch.Tensor
    n_tokens: int
    has_factors = True

    def __len__(self):
        return len(self.g)

    @property
    def n_positions(self):
        return self.g.shape[1]

    @property
    def shape(self):
        """(1, d, V) of one row's matrix."""
        return (1, self.g.shape[2], self.n_tokens)

    def tensors(self):
        return [self.tokens, self.g]

    def __getitem__(self, rows):
        return Indexed(self.tokens[rows], self.g[rows], self.n_tokens)

    def rotation_cost(self, left, right):
        return 0 if left is None else self.n_positions * self.g.shape[2] ** 2

    def rotate(self, left, right):
        """``left^T G``; ``right`` must be None, as a rotation of the input's side would make the matrix dense."""
        if right is not None:
            raise ValueError("an embedding's gradient keeps the coordinates of its input's side: right must be None")
        return self if left is None else Indexed(self.tokens, self.g @ left[0], self.n_tokens)

    def scaled(self, root):
        return Indexed(self.tokens, self.g * root[0].T[self.tokens], self.n_tokens)

    def merged(self):
        """The same gradient with every token at most once per row; places left over are zero."""
        tokens, order = self.tokens.sort(dim=1)
        fresh = torch.ones_like(tokens)
        fresh[:, 1:] = (tokens[:, 1:] != tokens[:, :-1]).long()
        slot = fresh.cumsum(1) - 1  # (B, T): the place of each sorted token among its row's distinct ones
        places = torch.empty_like(slot).scatter_(1, order, slot)
        g = torch.zeros_like(self.g).scatter_add_(1, places.unsqueeze(2).expand_as(self.g), self.g)
        return Indexed(torch.zeros_like(tokens).scatter_(1, slot, tokens), g, self.n_tokens)

    def matrix(self, out=None):
        """(B, 1, d, V), mostly zeros: for those who must have it."""
        shape = (len(self), *self.shape)
        matrices = self.g.new_zeros(shape) if out is None else out.zero_()
        index = self.tokens[:, None, None, :].expand(-1, 1, self.g.shape[2], -1)
        return matrices.scatter_add_(3, index, self.g.transpose(1, 2).unsqueeze(1))

    def squared_norm(self):
        return self.merged().g.square().sum((1, 2))

    def inner_(self, queries, out):
        """The protocol's, of the columns that are not zero.

        Some rows at a time meet the columns of the queries that these rows have tokens in, as formed matrices.
        """
        lines = queries.reshape(-1, self.n_tokens)  # two axes: torch's fast way to select
        rows = self._rows_together()
        for start in range(0, len(self), rows):
            part = self[start : start + rows]
            present, places = part.tokens.unique(return_inverse=True)
            formed = Indexed(places, part.g, len(present)).matrix().flatten(1)  # (rows, d * present)
            columns = lines.index_select(1, present).view(len(queries), -1)
            add_product(out[:, start : start + rows], columns, formed)
        return out

    def _rows_together(self):
        """Rows that :meth:`inner_` forms matrices of at a time."""
        return max(1, int((CHUNK_BYTES / (self.n_positions * self.g.shape[2] * self.g.element_size())) ** 0.5))

    def meeting_cost(self, n_queries):
        """The protocol's: a row meets the tokens of those that it is formed with."""
        present = min(self.n_tokens, self._rows_together() * self.n_positions)
        return n_queries * self.g.shape[2] * present

    def dyads(self, left, right):
        """The protocol's: a lookup in ``right``."""
        tokens, g = self.tokens.T.flatten(), self.g.transpose(0, 1).flatten(0, 1)  # positions first
        met = steady_product(left[0], g.T).mul_(right[0].index_select(1, tokens))
        return met.view(len(met), self.n_positions, len(self)).sum(1)

    def dyad_cost(self):
        return self.n_positions * (self.g.shape[2] + 2 * ENTRY_COST)

    def combined(self, weights):
        """The protocol's, of the columns that are not zero."""
        total = weights.new_zeros((len(weights), *self.shape))
        tokens, flat = self.tokens.flatten(), self.g.flatten(0, 1)  # (B T,), (B T, d)
        per_place = weights.repeat_interleave(self.n_positions, dim=1)
        for sums, own in zip(total, per_place):
            sums[0].index_add_(1, tokens, (flat * own[:, None]).T)
        return total

    def bucketed(self, buckets, n_buckets):
        """The protocol's, of the columns that are not zero."""
        places = buckets.view(-1, self.n_tokens).T[self.tokens]  # (B, T, d)
        total = self.g.new_zeros((len(self), n_buckets))
        return total.scatter_add_(1, places.flatten(1), self.g.flatten(1))

    def compressed(self, left, right):
        """The protocol's: a lookup of ``right``, whose lines are the tokens'."""
        if right is None:
            return self.rotate(left, None).matrix()
        g = self.g if left is None else self.g @ left[0]
        return (g.mT @ right[0][self.tokens]).unsqueeze(1)

    def rowwise_inner(self, vectors):
        d = self.g.shape[2]
        index = self.tokens.unsqueeze(1).expand(-1, d, -1)
        columns = vectors.view(len(self), d, self.n_tokens).gather(2, index)  # (B, d, T)
        return (columns.transpose(1, 2) * self.g).sum((1, 2))

    def input_moment(self):
        """Counts of the tokens, (1, V): the diagonal of the second moment of their one-hot vectors."""
        return torch.bincount(self.tokens.flatten(), minlength=self.n_tokens).to(self.g.dtype).unsqueeze(0)

    def output_moment(self):
        """Sum over rows and positions of ``g g^T`` (1, d, d)."""
        flat = self.g.flatten(0, 1)
        return (flat.T @ flat).unsqueeze(0)

    def moments(self, wanted_input, wanted_output):
        """Sums over rows of ``G^T G`` (its diagonal, (1, V)) and of ``G G^T`` (1, d, d), None where not wanted."""
        once = self.merged()
        a = None
        if wanted_input:
            a = once.g.new_zeros((1, self.n_tokens))
            a[0].index_add_(0, once.tokens.flatten(), once.g.square().sum(2).flatten())
        return a, once.output_moment() if wanted_output else None

    @classmethod
    def squared_in_basis(cls, columns, left, right):
        """``right`` must be None, as for :meth:`rotate`."""
        total = columns[0].g.new_zeros(columns[0].shape)
        for column in columns:
            once = column.merged().rotate(left, right)
            total[0].index_add_(1, once.tokens.flatten(), once.g.flatten(0, 1).square().T)
        return total

    @classmethod
    def weighted_sum(cls, gradients, weights):
        return Indexed(
            torch.cat([gradient.tokens for gradient in gradients], dim=1),
            torch.cat([gradient.g * weight for gradient, weight in zip(gradients, weights)], dim=1),
            gradients[0].n_tokens,
        )
