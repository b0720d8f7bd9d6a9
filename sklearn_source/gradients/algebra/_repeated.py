"""Per-row gradients of one outer product each, of rows that come several times with the same input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ._factored import Factored
from ._products import ALIGNED, CHUNK_BYTES, ENTRY_COST, even_chunks, steady_product
from ._row_gradient import RowGradient
from ._scaled import Scaled

# What rounding leaves of nothing, in units of the data type's: of inputs that are the same, and of a coordinate in
# which no row has anything, as of a pixel that is always dark.
_NOTHING = 32.0
# Gradients of one input are padded to a common number, no larger than this.
_WIDEST = 16


@dataclass(frozen=True)
class Repeated(RowGradient):
    """``G_n = g_n a_n^T`` where neighbours have the same ``a``, as Fisher columns of one row have: met once.

    Made once from rows that will meet many vectors; coordinates in which none of them has anything are left out.

    Attributes
    ----------
    first : tensor (R, groups, X)
        Of every run of rows, the side that vectors meet first: ``a`` of rows that share it, or ``g`` where that is
        less work, each row a run of its own. Zeros behind make X a multiple of eight.
    second : tensor (R, groups, Y, k)
        The other side of up to k rows of the run, then zeros.
    places : tensor of int64 (B,)
        Every row's place among R k.
    spans : (slice, slice)
        Those of the matrix' lines and columns that are met.
    turned : bool
        Whether ``g`` is met first.
    whole : (groups, out, in)
        The shape of a row's matrix.
    """

    first: torch.Tensor
    second: torch.Tensor
    places: torch.Tensor
    spans: tuple[slice, slice]
    turned: bool
    whole: tuple[int, int, int]
    has_factors = True

    @classmethod
    def of(cls, gradients: Sequence[Factored]) -> Repeated:
        """Some gradients of one position, one after the other."""
        groups, n_out, n_in = gradients[0].shape
        a, g = (torch.cat([x[:, :, 0] for x in side]) for side in zip(*((part.a, part.g) for part in gradients)))
        runs = torch.cat([_starts(part.a[:, :, 0]) for part in gradients]).cumsum(0) - 1  # (B,)
        lines, columns = _span(g), _span(a)
        a, g = a[..., columns], g[..., lines]
        n_rows, n_runs, a_size, g_size = len(a), len(runs.unique()), a.shape[2], g.shape[2]
        turned = _work(n_rows, g_size, a_size, n_rows) < _work(n_runs, a_size, g_size, n_rows)
        first, second = (g, a) if turned else (a, g)
        if turned:
            runs = torch.arange(len(a), device=a.device)
        slot, width = _slots(runs, first.shape[2])
        fresh = slot == 0
        places = (fresh.cumsum(0) - 1) * width + slot
        padded = second.new_zeros((int(fresh.sum()) * width, *second.shape[1:])).index_copy_(0, places, second)
        padded = padded.view(-1, width, *second.shape[1:]).permute(0, 2, 3, 1).contiguous()
        first = F.pad(first[fresh], (0, -first.shape[2] % ALIGNED))
        return cls(first, padded, places, (lines, columns), turned, (groups, n_out, n_in))

    def __len__(self):
        return len(self.places)

    @property
    def shape(self):
        return self.whole

    def tensors(self):
        return [self.first, self.second]

    def factored(self) -> Factored:
        """The same rows, every one with a copy of its input."""
        width = self.second.shape[3]
        second = self.second.permute(0, 3, 1, 2).flatten(0, 1)[self.places]
        first = self.first[self.places // width][..., : self._met]
        a, g = (second, first) if self.turned else (first, second)
        lines, columns = self.spans
        g, a = (
            F.pad(x, (span.start, size - span.stop)) for x, span, size in zip((g, a), (lines, columns), self.whole[1:])
        )
        return Factored(a.unsqueeze(2), g.unsqueeze(2))

    @property
    def _met(self):
        """X without the zeros behind."""
        span = self.spans[0 if self.turned else 1]
        return span.stop - span.start

    def __getitem__(self, rows):
        return Repeated.of([self.factored()[rows]])

    def matrix(self, out=None):
        return self.factored().matrix(out)

    def matrix_chunks(self):
        return self.factored().matrix_chunks()

    def rotate(self, left, right):
        return self.factored().rotate(left, right)

    def rotate_factors(self, left, right):
        return Repeated.of([self.factored().rotate_factors(left, right)])

    def rotation_cost(self, left, right):
        groups, n_out, n_in = self.whole
        return groups * ((n_in * n_in if right is not None else 0) + (n_out * n_out if left is not None else 0))

    def scaled(self, root):
        return Scaled(self, root)

    def inner_(self, queries, out):
        """The protocol's: a run's common side meets every vector once, the rest is a product of small matrices."""
        matrices = queries.unflatten(1, self.whole)
        for some in self._chunks(len(queries)):
            for group in range(self.whole[0]):
                part = self._facing(matrices[some, group])  # (n, Y, X)
                first, second = self.first[:, group, : self._met], self.second[:, group]
                met = steady_product(first, part.reshape(-1, part.shape[2]).T).view(len(first), *part.shape[:2])
                found = torch.bmm(met, second)  # (R, n, k)
                out[some] += found.transpose(0, 1).flatten(1)[:, self.places]
        return out

    def meeting_cost(self, n_queries):
        runs, groups, inner = self.first.shape
        outer, width = self.second.shape[2:]
        return n_queries * groups * runs * outer * (inner + width) / max(1, len(self))

    def dyads(self, left, right):
        return self.factored().dyads(left, right)

    def dyad_cost(self):
        groups, n_out, n_in = self.whole
        return groups * (n_out + n_in + ENTRY_COST)

    def combined(self, weights):
        """The protocol's, a run's sum of its other sides first."""
        runs, _, _, width = self.second.shape
        placed = weights.new_zeros((len(weights), runs * width))
        placed[:, self.places] = weights
        placed = placed.view(len(weights), runs, width).transpose(0, 1)  # (R, n_sums, k)
        total = weights.new_zeros((len(weights), *self.whole))
        for some in self._chunks(len(weights)):
            for group in range(self.whole[0]):
                sums = torch.bmm(placed[:, some], self.second[:, group].mT)  # (R, n, Y)
                # Aligned lines are written half as fast again.
                part = steady_product(sums.flatten(1).T, self.first[:, group]).view(*sums.shape[1:], -1)
                self._facing(total[some, group]).copy_(part[..., : self._met])
        return total

    def input_moment(self):
        return self.factored().input_moment()

    def output_moment(self):
        return self.factored().output_moment()

    def _facing(self, matrices):
        """What is met of matrices (n, out, in): (n, Y, X)."""
        lines, columns = self.spans
        matrices = matrices[..., lines, columns]
        return matrices.mT if self.turned else matrices

    def _chunks(self, n):
        runs, _, outer, _ = self.second.shape
        return even_chunks(n, CHUNK_BYTES // max(1, runs * outer * self.second.element_size()))

    @classmethod
    def weighted_sum(cls, gradients, weights):
        return Factored.weighted_sum([gradient.factored() for gradient in gradients], weights)


def _starts(inputs):
    """(B,) 1 where a row's inputs (B, groups, in) are not those of the row before."""
    starts = torch.ones(len(inputs), dtype=torch.long, device=inputs.device)
    if len(inputs) > 1:
        flat = inputs.flatten(1)
        moved = (flat[1:] - flat[:-1]).abs().amax(1)
        same = moved <= _NOTHING * torch.finfo(inputs.dtype).eps * flat[1:].abs().amax(1)
        starts[1:] = (~same).long()  # where there is no number nothing is the same
    return starts


def _span(side):
    """From the first to the last coordinate of (B, groups, size) that is more than rounding leaves."""
    share = side.double().square().sum((0, 1))
    present = (~(share <= (_NOTHING * torch.finfo(side.dtype).eps) ** 2 * share.sum())).nonzero()
    return slice(int(present[0]), int(present[-1]) + 1) if len(present) else slice(0, 1)


def _work(n_runs, inner, outer, n_rows):
    """Multiplications per group and vector, where a side of the size ``inner`` is met first."""
    return n_runs * inner * outer + ENTRY_COST * n_rows * outer


def _slots(runs, inner):
    """Every row's place in its run, which are cut so that padding costs least, and the width padded to."""
    if not len(runs):
        return runs, 1
    counts = torch.bincount(runs)
    place = torch.arange(len(runs), device=runs.device) - (counts.cumsum(0) - counts)[runs]
    widths = range(1, 1 + min(_WIDEST, int(counts.max())))
    width = min(widths, key=lambda k: int((-(-counts // k)).sum()) * (inner + k))
    return place % width, width
