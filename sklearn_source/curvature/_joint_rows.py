"""The Fisher columns of a segment, all blocks of them at once: what couples layers."""

from __future__ import annotations

import copy

import torch

from ..gradients.algebra import Meeting, Scaled, add_inner, formed, joined
from ..utils._config import bytes_for
from ..utils._locks import cached_property
from ._eigen import Basis


class JointRows:
    """``R`` with ``R^T R`` the curvature of all parameters, in the coordinates of a fitted curvature.

    Kept columns are brought into these coordinates once; columns that are streamed, or in the metric of an adaptive
    optimizer, meet vectors that are decoded.

    Parameters
    ----------
    bases : list of Basis, one per block
        The coordinates.
    penalties : list of (tensor (groups, out, in) or None), one per block
        A diagonal in parameters' coordinates, added to ``R^T R``.
    kept : list of list of list of gradients, optional
        Batches of blocks of columns, weights included.
    stream : FisherStream, optional
        In place of ``kept``: every column, in one pass for each product.
    """

    def __init__(self, bases, penalties, kept=None, stream=None):
        self._stream, self._bases, self._penalties = stream, bases, penalties
        self._kept = self._in_bases = None
        if kept is not None:
            blocks = [[g for batch in kept for g in batch[block]] for block in range(len(bases))]
            self._in_bases = not any(isinstance(own[0], Scaled) for own in blocks)
            coordinates = bases if self._in_bases else [Basis()] * len(bases)
            self._kept = [joined(own, basis.left, basis.right) for own, basis in zip(blocks, coordinates)]

    def formed(self):
        """The same for many products: columns of several positions as matrices, as far as these fit in memory."""
        if self._kept is None or not self._in_bases:
            return self
        other = copy.copy(self)
        other._kept = formed(self._kept, bytes_for("fisher_columns"))
        return other

    @cached_property
    def n_columns(self):
        """How many columns, the length of what :meth:`push` gives."""
        if self._kept is not None:
            return sum(map(len, self._kept[0]))
        stream = self._stream
        return stream.n_rows * sum(len(next(iter(stream.columns(c)))[0]) for c in range(len(stream.checkpoints)))

    def push(self, vectors, tol=None):
        """``R_b v_b`` of every block: list of tensor (n, n_columns), of vectors (n, groups, out, in).

        With a tolerance, of vectors that have an error of it relative to their norms, where that is less work.
        """
        met = [self._to_meet(v, block, tol) for block, v in enumerate(self._decoded(vectors))]
        if self._kept is not None:
            return [torch.cat([_inner(v, g) for g in own], dim=1) for v, own in zip(met, self._kept)]
        parts = [[] for _ in met]
        for batch, root in self._batches():
            for part, columns, v in zip(parts, batch, met):
                part += [_inner(v, gradient).mul_(root) for gradient in columns]
        return [torch.cat(part, dim=1) for part in parts]

    def _to_meet(self, vectors, block, tol):
        """A block's vectors as columns meet them: as outer products where these are less work."""
        if tol is not None and self._kept is not None:
            found = Meeting(self._kept[block][0], self.n_columns, tol).low_rank(vectors)
            if found is not None:
                return found
        return vectors.flatten(1)

    def pull(self, weights):
        """``R^T w`` of weights (n, n_columns): list of tensor (n, groups, out, in), one per block, that are new."""
        if self._kept is not None:
            total = [_combined(weights, own) for own in self._kept]
        else:
            total, start = None, 0
            for batch, root in self._batches():
                for columns in zip(*batch):
                    own = weights[:, start : start + len(columns[0])] * root
                    start += len(columns[0])
                    parts = [gradient.combined(own) for gradient in columns]
                    total = parts if total is None else [t.add_(part) for t, part in zip(total, parts)]
        return total if self._in_bases else [basis.encode(v) for basis, v in zip(self._bases, total)]

    def penalised(self, block, vectors):
        """The penalty's diagonal times vectors (n, groups, out, in) of one block; None where there is none."""
        penalty = self._penalties[block]
        if penalty is None:
            return None
        basis = self._bases[block]
        return basis.encode(basis.inverse().encode(vectors) * penalty.to(vectors))

    def _decoded(self, vectors):
        return vectors if self._in_bases else [b.inverse().encode(v) for b, v in zip(self._bases, vectors)]

    def _batches(self):
        """Batches of blocks of streamed columns, and what their products are multiplied by.

        Columns come in one order: batch by batch, within it column by column.
        """
        stream = self._stream
        for c, weight in enumerate(stream.weights):
            for batch in stream.columns(c):
                yield batch, (float(weight) / stream.n_rows) ** 0.5


def _inner(vectors, gradient):
    """(n, B) inner products of vectors with gradients."""
    return add_inner(gradient.tensors()[-1].new_zeros((len(vectors), len(gradient))), vectors, gradient)


def _combined(weights, gradients):
    """The sum of all gradients of a block, with weights (n, n_columns)."""
    total, start = None, 0
    for gradient in gradients:
        part = gradient.combined(weights[:, start : start + len(gradient)])
        total, start = part if total is None else total.add_(part), start + len(gradient)
    return total
