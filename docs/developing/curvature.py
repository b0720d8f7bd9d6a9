"""One eigenvalue for each layer: a curvature of few lines."""

from __future__ import annotations

import math

import torch

from sklearn_source.curvature import Basis, Curvature, EigenCurvature


class Isotropic(Curvature):
    """The mean of the diagonal of H in each block, times the identity.

    Parameters
    ----------
    fisher : {"auto", "exact", "sampled", "empirical"}, default="auto"
        Which gradients H is an average of.
    """

    def __init__(self, *, fisher="auto"):
        self.fisher = fisher

    def fit(self, stream):
        totals = [0.0 for _ in stream.blocks]
        for checkpoint, weight in enumerate(stream.weights):  # they sum to one
            for batch in stream.columns(checkpoint):  # some rows
                for number, columns in enumerate(batch):  # block by block
                    for gradients in columns:  # one for every Fisher column
                        squares = gradients.matrix().double().square().sum()
                        totals[number] += weight / stream.n_rows * float(squares)  # H is that of the *mean* loss
        eigenvalues = [
            torch.full(block.shape, total / math.prod(block.shape), dtype=stream.dtype, device=stream.device)
            for block, total in zip(stream.blocks, totals)
        ]
        # A weight decay that was preconditioned is a diagonal beside that of the rows.
        eigenvalues = [
            values if penalty is None else values + penalty.mean()
            for values, penalty in zip(eigenvalues, stream.penalties)
        ]
        return EigenCurvature([Basis() for _ in eigenvalues], eigenvalues)  # Basis(): parameters' own coordinates
