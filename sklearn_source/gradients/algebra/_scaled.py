"""Per-row gradients in a metric: whole matrices, formed a few rows at a time.

A product with a full matrix leaves no factors, and covariances of whole matrices need them formed: memory stays that of
one chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ._dense import Dense
from ._row_gradient import RowGradient


@dataclass(frozen=True)
class Scaled(RowGradient):
    """``root * G_n`` element by element for every row n of ``gradient``; ``root`` (groups, out, in)."""

    gradient: RowGradient
    root: torch.Tensor

    def __len__(self):
        return len(self.gradient)

    def __getitem__(self, rows):
        return Scaled(self.gradient[rows], self.root)

    @property
    def shape(self):
        return self.gradient.shape

    def tensors(self):
        return self.gradient.tensors()

    def matrix(self, out=None):
        if out is None:
            return self.gradient.matrix() * self.root
        return self.gradient.matrix(out=out).mul_(self.root)

    def rotate(self, left, right):
        return Dense(self.matrix()).rotate(left, right)

    def scaled(self, root):
        return Scaled(self.gradient, self.root * root)

    def inner_(self, queries, out):
        """``<q, root * G> = <root * q, G>``: the gradient within meets the queries."""
        return self.gradient.inner_((queries * self.root.flatten()).to(queries.dtype), out)

    def combined(self, weights):
        return self.gradient.combined(weights).mul_(self.root)

    def rowwise_inner(self, vectors):
        return self.gradient.rowwise_inner(vectors * self.root.flatten())

    @classmethod
    def weighted_sum(cls, gradients, weights):
        """Formed, as gradients in several metrics have no common one."""
        return Dense.weighted_sum(gradients, weights)
