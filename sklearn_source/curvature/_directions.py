"""Orthonormal directions within one block, some for each of many vectors."""

from __future__ import annotations

import torch

from ..gradients.algebra import even_chunks

# Bytes of what elementwise work goes over at a time: they stay in a cache.
_CHUNK_BYTES = 8 * 2**20
# A vector that keeps this share of its length is as good as orthogonal to what was taken out of it, but for rounding.
_MOST_OF_IT = 0.5


class Directions:
    """Up to ``most`` directions for every one of n vectors, found one after the other.

    Products with them are of one vector's directions at a time: the same whichever vectors come with it.

    Parameters
    ----------
    like : tensor (n, groups, out, in)
        The vectors.
    most : int
        Directions that there will be.
    """

    def __init__(self, like, most):
        self._held = like.new_empty((len(like), most, like[:1].numel()))
        self._count = 0

    def __len__(self):
        return self._count

    @property
    def held(self):
        """(n, most, size): memory of all directions, those to come included."""
        return self._held

    def latest(self, shape):
        """The last one of every vector, (n, groups, out, in)."""
        return self._held[:, self._count - 1].view(shape)

    def chunks(self, n=None):
        """Slices of n vectors (all of them if None) whose directions are read together."""
        per_vector = max(1, self._held[:1].numel() * self._held.element_size())
        return even_chunks(len(self._held) if n is None else n, _CHUNK_BYTES // per_vector)

    def add(self, vectors):
        """What vectors (n, size) add to the directions, of length one, or zero where that is nothing.

        Returns
        -------
        lengths : tensor (n,)
            Of the vectors.
        """
        lengths = vectors.new_zeros(len(vectors))
        for some in self.chunks():
            part = vectors[some]
            length = part.norm(dim=1)
            left = length
            if self._count:
                part = self._less(some, part)
                left = part.norm(dim=1)
                if bool((left < _MOST_OF_IT * length).any()):  # rounding shows; twice is enough (Kahan)
                    part = self._less(some, part)
                    left = part.norm(dim=1)
            # What rounding leaves of a direction that is there already is none.
            new = left > 1e3 * torch.finfo(part.dtype).eps * length
            scale = torch.where(new, 1 / torch.where(new, left, 1.0), 0.0)
            torch.mul(part, scale[:, None], out=self._held[some, self._count])
            lengths[some] = length
        self._count += 1
        return lengths

    def _less(self, some, vectors):
        """Vectors (m, size) without what they have of the directions."""
        inner = self.inner(some, vectors)
        return torch.baddbmm(vectors.unsqueeze(1), inner.unsqueeze(1), self._of(some), alpha=-1).squeeze(1)

    def inner(self, some, vectors):
        """Inner products of vectors (m, size) with their directions, ``some`` of n: (m, number of directions)."""
        return torch.bmm(vectors.unsqueeze(1), self._of(some).mT).squeeze(1)

    def combined(self, some, coefficients):
        """Sums with coefficients (m, number of directions), for ``some`` of the n: (m, size)."""
        held = self._of(some)
        return torch.bmm(coefficients.to(held.dtype).unsqueeze(1), held).squeeze(1)

    def _of(self, some):
        return self._held[some, : self._count]
