"""Random projections of per-row gradients into few numbers that keep inner products, in the mean.

A projection is a linear map of all blocks together, ``E[<P x, P y>] = <x, y>``. Its random numbers come from a
counter-based generator keyed by (seed, stream, block): they are made anew for every batch, none are kept, and batches
of any size see the same map.
"""

from __future__ import annotations

import math

import numpy as np
import torch

# Bytes of the signs made at a time.
_SIGN_BYTES = 32 * 2**20


class Projection:
    """All gradients side by side, as they are.

    Parameters
    ----------
    shapes : list of (groups, out, in)
        Of the blocks.
    n_components : int
        Width of the result.
    key : (int, int)
        Seed, and which of several maps with that seed.

    Attributes
    ----------
    width : int
        Numbers per row.
    """

    def __init__(self, shapes, n_components, key):
        self._shapes, self._key = shapes, key
        self._sizes = [math.prod(shape) for shape in shapes]
        self.width = n_components

    def __call__(self, gradients):
        """(B, width) of the gradients of a batch, one per block."""
        return torch.cat([gradient.matrix().flatten(1) for gradient in gradients], dim=1)

    def _random(self, block=0, component=0):
        counter = np.array([0, 0, component, block], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=np.array(self._key, dtype=np.uint64), counter=counter))


class SparseJohnsonLindenstrauss(Projection):
    """Every coordinate goes with a random sign into one of the components (Clarkson & Woodruff 2013)."""

    def __call__(self, gradients):
        total = 0.0
        for number, (gradient, size) in enumerate(zip(gradients, self._sizes)):
            # The upper half of the buckets is subtracted: a sign costs nothing.
            buckets = torch.from_numpy(self._random(number).integers(2 * self.width, size=size))
            total = total + gradient.bucketed(buckets.to(gradient.tensors()[-1].device), 2 * self.width)
        return total[:, : self.width] - total[:, self.width :]


class Rademacher(Projection):
    """Inner products with vectors of random signs."""

    def __call__(self, gradients):
        like = gradients[0].tensors()[-1]
        found = like.new_zeros((self.width, len(gradients[0])))
        for number, (gradient, size) in enumerate(zip(gradients, self._sizes)):
            step = max(1, _SIGN_BYTES // (size * like.element_size()))
            for start in range(0, self.width, step):
                some = range(start, min(start + step, self.width))
                signs = np.stack([self._signs(number, component, size) for component in some])
                gradient.inner_(torch.from_numpy(signs).to(like).mul_(2).sub_(1), found[start : some.stop])
        return found.T / math.sqrt(self.width)

    def _signs(self, block, component, size):
        """Bits, a component's the same whatever the number of components."""
        drawn = self._random(block, component).bytes(-(-size // 8))
        return np.unpackbits(np.frombuffer(drawn, dtype=np.uint8), count=size)


class Mask(Projection):
    """Some coordinates, drawn without replacement."""

    def __call__(self, gradients):
        bounds = np.cumsum([0, *self._sizes])
        index = np.sort(self._random().choice(bounds[-1], self.width, replace=False, shuffle=False))
        parts = []
        for gradient, low, high in zip(gradients, bounds, bounds[1:]):
            own = torch.from_numpy(index[(index >= low) & (index < high)] - low)
            parts.append(gradient.entries(own.to(gradient.tensors()[-1].device)))
        return torch.cat(parts, dim=1) * math.sqrt(bounds[-1] / self.width)


class Kronecker(Projection):
    """``P_out^T G P_in`` per layer, of inputs and output gradients apart (LoGra, Choe et al. 2024).

    Every block gets the same number of components, small ones at most their size; a side as few as the other, or all it
    has.
    """

    def __init__(self, shapes, n_components, key):
        super().__init__(shapes, n_components, key)
        self._sides = self._shares(n_components)
        self.width = sum(shape[0] * out * inp for shape, (out, inp) in zip(shapes, self._sides))

    def _shares(self, n_components):
        """Components per block, the room that small blocks leave given to the others, as (out, in) of each."""
        sides, left = {}, n_components
        for count, number in enumerate(sorted(range(len(self._sizes)), key=self._sizes.__getitem__)):
            groups, out, inp = self._shapes[number]
            share = max(1, left // (len(self._sizes) - count) // groups)
            n_out = min(out, math.isqrt(share))
            n_in = min(inp, share // n_out)
            sides[number] = min(out, share // n_in), n_in
            left -= groups * sides[number][0] * n_in
        return [sides[number] for number in range(len(self._sizes))]

    def __call__(self, gradients):
        parts = []
        for number, (gradient, sides) in enumerate(zip(gradients, self._sides)):
            random, groups = self._random(number), self._shapes[number][0]
            left, right = (
                None
                if kept == width
                else torch.from_numpy(random.standard_normal((groups, width, kept)) / math.sqrt(kept))
                for width, kept in zip(self._shapes[number][1:], sides)
            )
            like = gradient.tensors()[-1]
            left, right = (None if side is None else side.to(like) for side in (left, right))
            parts.append(gradient.compressed(left, right).flatten(1))
        return torch.cat(parts, dim=1)


PROJECTIONS = {"sjlt": SparseJohnsonLindenstrauss, "rademacher": Rademacher, "kronecker": Kronecker, "mask": Mask}


def make_projection(name, shapes, n_components, key):
    """The :class:`Projection` of a name; the identity where there are no more parameters than components, or None."""
    n_parameters = sum(math.prod(shape) for shape in shapes)
    if n_components is None or n_components >= n_parameters:
        return Projection(shapes, n_parameters, key)
    return PROJECTIONS[name](shapes, n_components, key)
