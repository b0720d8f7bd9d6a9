"""Per-row gradients as the matrices themselves."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ._moments import second_moment
from ._products import rotate_matrices
from ._row_gradient import RowGradient


@dataclass(frozen=True)
class Dense(RowGradient):
    """The matrices ``G`` (B, groups, out, in) themselves."""

    G: torch.Tensor

    def __len__(self):
        return self.G.shape[0]

    def __getitem__(self, rows):
        return Dense(self.G[rows])

    @property
    def shape(self):
        return tuple(self.G.shape[1:])

    def tensors(self):
        return [self.G]

    def matrix(self, out=None):
        return self.G if out is None else out.copy_(self.G)

    def matrix_chunks(self):
        """All at once: they are formed."""
        yield slice(0, len(self)), self.G

    def rotate(self, left, right):
        return Dense(rotate_matrices(self.G, left, right))

    def scaled(self, root):
        return Dense(self.G * root)

    @classmethod
    def whole_moments(cls, columns, wanted_input, wanted_output):
        """The protocol's, of all columns in one sum."""
        inputs = second_moment(column.G for column in columns) if wanted_input else None
        outputs = second_moment(column.G.transpose(2, 3) for column in columns) if wanted_output else None
        return inputs, outputs

    @classmethod
    def weighted_sum(cls, gradients, weights):
        total = gradients[0].matrix() * weights[0]
        for gradient, weight in zip(gradients[1:], weights[1:]):
            total.add_(gradient.matrix(), alpha=weight)
        return Dense(total)
