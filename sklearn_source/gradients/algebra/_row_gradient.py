"""The protocol that every form of a per-row gradient keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, cast

import torch

from ._moments import second_moment
from ._products import CHUNK_BYTES, add_product, rotate_matrices


class RowGradient(ABC):
    """The gradients of B rows in one block of parameters: for row ``n`` a matrix ``G_n`` of shape (groups, out, in).

    ``groups`` is 1 but for grouped convolutions, whose curvature is block diagonal over the groups. A form has to say
    what is abstract here; the rest follows from the matrices, formed a chunk at a time, and a form replaces what it has
    a faster way for. B is ``len(gradient)``; a *query* is a vector of ``groups * out * in`` numbers, laid out as a
    matrix; a *basis* is a pair ``left`` (groups, out, out) and ``right`` (groups, in, in), None for the identity.

    Attributes
    ----------
    has_factors : bool
        Whether the form is a sum of outer products of inputs and output gradients over positions. Then
        :meth:`input_moment` and :meth:`output_moment` are those of the factors, and sums over checkpoints have more
        positions; else they are those of whole matrices, and a sum is as large as one summand.
    """

    has_factors: ClassVar[bool] = False

    @abstractmethod
    def __len__(self) -> int:
        """B, the number of rows."""

    @abstractmethod
    def __getitem__(self, rows: slice) -> RowGradient:
        """Some rows, in the same form. Cost: none, nothing is copied."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """(groups, out, in) of one row's matrix."""

    @property
    def n_positions(self) -> int:
        """Outer products that a row's matrix is the sum of; 1 where there are no factors."""
        return 1

    @abstractmethod
    def tensors(self) -> list[torch.Tensor]:
        """The tensors held, for counting memory; the last has the gradient's dtype and device."""

    @abstractmethod
    def matrix(self, out: torch.Tensor | None = None) -> torch.Tensor:
        """(B, groups, out, in); written into ``out``, a contiguous tensor, where one is given.

        Memory: B matrices, which the other methods avoid.
        """

    def matrix_chunks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """The rows in slices, and for each the matrices of those rows. Memory: one chunk of matrices at a time."""
        groups, out, inp = self.shape
        size = groups * out * inp * self.tensors()[-1].element_size()
        step = max(1, CHUNK_BYTES // size)
        for start in range(0, len(self), step):
            rows = slice(start, min(start + step, len(self)))
            yield rows, self[rows].matrix()

    @abstractmethod
    def rotate(self, left: torch.Tensor | None, right: torch.Tensor | None) -> RowGradient:
        """``left^T G_n right``, in whichever form multiplies less.

        Raises ValueError where the form keeps the coordinates of a side that is to be rotated.
        """

    def rotate_factors(self, left: torch.Tensor | None, right: torch.Tensor | None) -> RowGradient:
        """``left^T G_n right``, with factors still where there are some: no matrix per row is held."""
        return self.rotate(left, right)

    def rotation_cost(self, left: torch.Tensor | None, right: torch.Tensor | None) -> int:
        """Multiplications per row of :meth:`rotate_factors`."""
        groups, out, inp = self.shape
        return groups * out * inp * ((inp if right is not None else 0) + (out if left is not None else 0))

    @abstractmethod
    def scaled(self, root: torch.Tensor) -> RowGradient:
        """``root * G_n`` element by element, ``root`` (groups, out, in)."""

    def squared_norm(self) -> torch.Tensor:
        """(B,) squared Frobenius norms."""
        return self.matrix().flatten(1).square().sum(1)

    def inner_(self, queries: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """``out += queries @ vec(G)^T`` in place, and ``out``: queries (n_query, groups*out*in), out (n_query, B).

        Cost: ``n_query * B * groups * out * in`` multiplications, and what forms the matrices, a chunk at a time.
        """
        for rows, matrices in self.matrix_chunks():
            add_product(out[:, rows], queries, matrices.flatten(1))
        return out

    def meeting_cost(self, n_queries: int) -> float:
        """Multiplications per row of :meth:`inner_`."""
        groups, out, inp = self.shape
        return n_queries * groups * out * inp

    def dyads(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """``sum_g u_gr^T G_ng w_gr`` for ``left`` (groups, R, out) and ``right`` (groups, R, in): (R, B).

        Cost: :meth:`dyad_cost` per row and outer product ``u w^T``.
        """
        met = [(left @ matrix * right).sum((0, 2)) for _, matrices in self.matrix_chunks() for matrix in matrices]
        return torch.stack(met, dim=1)

    def dyad_cost(self) -> float:
        """Multiplications per row and outer product of :meth:`dyads`."""
        groups, out, inp = self.shape
        return groups * inp * (out + 1)

    def combined(self, weights: torch.Tensor) -> torch.Tensor:
        """``sum_n w[k, n] G_n`` for weights (n_sums, B): (n_sums, groups, out, in), the transpose of :meth:`inner_`.

        Cost: ``n_sums * B * groups * out * in`` multiplications, and what forms the matrices, a chunk at a time.
        """
        groups, out, inp = self.shape
        total = weights.new_zeros((len(weights), groups * out * inp))
        for rows, matrices in self.matrix_chunks():
            total.addmm_(weights[:, rows], matrices.flatten(1))
        return total.view(-1, groups, out, inp)

    def rowwise_inner(self, vectors: torch.Tensor) -> torch.Tensor:
        """(B,) inner products of each row's gradient with its own ``vectors[n]`` (B, groups*out*in)."""
        return (self.matrix().flatten(1) * vectors).sum(1)

    def bucketed(self, buckets: torch.Tensor, n_buckets: int) -> torch.Tensor:
        """Sums over the entries of every bucket: (B, n_buckets); ``buckets`` (groups*out*in,) of int64 is each entry's.

        Cost: ``B * groups * out * in`` additions, and what forms the matrices, a chunk at a time.
        """
        total = self.tensors()[-1].new_zeros((len(self), n_buckets))
        for rows, matrices in self.matrix_chunks():
            total[rows].index_add_(1, buckets, matrices.flatten(1))
        return total

    def entries(self, index: torch.Tensor) -> torch.Tensor:
        """Some entries of every row's gradient laid out as a vector: (B, n), for ``index`` (n,) of int64."""
        return torch.cat([matrices.flatten(1)[:, index] for _, matrices in self.matrix_chunks()])

    def compressed(self, left: torch.Tensor | None, right: torch.Tensor | None) -> torch.Tensor:
        """``left^T G_n right`` for ``left`` (groups, out, k) and ``right`` (groups, in, l): (B, groups, k, l).

        None stands for the identity. With factors no matrix larger than that is formed.
        """
        return self.rotate_factors(left, right).matrix()

    def input_moment(self) -> torch.Tensor:
        """Second moment of the input's side, summed over rows: (groups, in, in), or its diagonal (groups, in).

        With factors ``sum a a^T`` over rows and positions, without ``sum G^T G`` over rows.
        """
        return cast("torch.Tensor", self.moments(True, False)[0])

    def output_moment(self) -> torch.Tensor:
        """Second moment of the output's side, summed over rows: (groups, out, out).

        With factors ``sum g g^T`` over rows and positions, without ``sum G G^T`` over rows.
        """
        return cast("torch.Tensor", self.moments(False, True)[1])

    @classmethod
    def output_moments(cls, columns: Sequence[RowGradient]) -> torch.Tensor:
        """:meth:`output_moment` summed over several gradients of the same rows."""
        return sum((column.output_moment() for column in columns[1:]), columns[0].output_moment())

    def moments(self, wanted_input: bool, wanted_output: bool) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """``sum G^T G`` (as :meth:`input_moment`, a diagonal for some) and ``sum G G^T`` over rows, of whole matrices.

        None for what is not wanted; the matrices are formed once.
        """
        sums = (None, None)
        for _, matrices in self.matrix_chunks():
            inputs = second_moment([matrices]) if wanted_input else None
            outputs = second_moment([matrices.transpose(2, 3)]) if wanted_output else None
            sums = added(sums, (inputs, outputs))
        return sums

    @classmethod
    def whole_moments(
        cls, columns: Sequence[RowGradient], wanted_input: bool, wanted_output: bool
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """:meth:`moments` summed over several gradients of the same rows, which share their inputs."""
        sums = (None, None)
        for column in columns:
            sums = added(sums, column.moments(wanted_input, wanted_output))
        return sums

    @classmethod
    def squared_in_basis(
        cls, columns: Sequence[RowGradient], left: torch.Tensor | None, right: torch.Tensor | None
    ) -> torch.Tensor:
        """``(left^T G right)^2`` elementwise, summed over rows and over several gradients of the same rows.

        Returns (groups, out, in). The gradients share their inputs. Memory: one chunk of matrices.
        """
        chunks = (matrices for column in columns for _, matrices in column.matrix_chunks())
        return sum(rotate_matrices(matrices, left, right).square().sum(0) for matrices in chunks)

    @classmethod
    @abstractmethod
    def weighted_sum(cls, gradients: Sequence[RowGradient], weights: Sequence[float]) -> RowGradient:
        """``sum_c w_c G_c`` of the same rows at several checkpoints, in one form; the summands are left as they are.

        With factors the checkpoints become further positions, so that their sum meets the queries once.
        """


def added(sums, parts):
    """Sums and new parts of them, either of which may be None, added in place: a tuple like ``sums``."""
    return tuple(part if total is None else total.add_(part) for total, part in zip(sums, parts))
