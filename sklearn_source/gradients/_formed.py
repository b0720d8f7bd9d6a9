"""Per-row gradients as whole matrices, formed a few rows at a time, in a metric where one is given.

A product with a full matrix leaves no factors, and covariances of whole matrices need them formed: memory stays that of
one chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ._rowgrad import CHUNK_BYTES, Dense, Factored


@dataclass(frozen=True)
class Formed:
    """``G_n``, or ``root * G_n`` element by element, for every row n of ``gradient``; ``root`` (groups, out, in)."""

    gradient: Factored | Dense
    root: torch.Tensor | None = None

    def __len__(self):
        return len(self.gradient)

    @property
    def shape(self):
        return self.gradient.shape

    def tensors(self):
        return self.gradient.tensors()

    def __getitem__(self, rows):
        return Formed(self.gradient[rows], self.root)

    def chunks(self):
        """Dense pieces of some rows each."""
        groups, out, inp = self.shape
        element = self.tensors()[-1].element_size()
        step = max(1, CHUNK_BYTES // (groups * out * inp * element))
        for start in range(0, len(self), step):
            yield Dense(self[start : start + step].matrix())

    def matrix(self):
        """(B, groups, out, in)."""
        matrices = self.gradient.matrix()
        return matrices if self.root is None else matrices * self.root

    def rotate(self, left, right):
        return Dense(self.matrix()).rotate(left, right)

    def moments(self, wanted_input, wanted_output):
        """Sums over rows of ``G^T G`` and of ``G G^T``, None where not wanted; the matrices are formed once."""
        sums = [None, None]
        for chunk in self.chunks():
            parts = chunk.moments(wanted_input, wanted_output)
            sums = [part if total is None else total.add_(part) for total, part in zip(sums, parts)]
        return sums


def scaled(gradient, root):
    """A gradient of any form in the metric of ``root``; a form that can take the product in keeps its kind."""
    own = getattr(gradient, "scaled", None)
    return own(root) if own else Formed(gradient, root)
