"""SOURCE in the metric of a diagonal preconditioner (METHOD section 4, "Adam"), written out in P x P matrices."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ._factors import Block, scatter_blocks
from ._scores import phi_F, phi_S


@dataclass
class MetricSegment:
    """One segment of an adaptive optimizer.

    ``preconditioner`` (P,); ``coupled`` and ``decoupled`` decay, numbers or (P,); ``columns[c]`` the Fisher columns of
    every row at checkpoint c, a list over rows of (n_columns, P); ``indices`` the blocks' flat positions, (out, in);
    ``kept`` whether a block's input side keeps its own coordinates.
    """

    h: float
    preconditioner: torch.Tensor
    coupled: float | torch.Tensor
    decoupled: float | torch.Tensor
    weights: list
    columns: list
    row_gradients: list
    indices: list
    kept: list


def metric_block(segment, index, kept):
    """EK-FAC of one block of ``P^1/2 H P^1/2 + coupled P``, from whole scaled gradients."""
    P = segment.preconditioner[index]
    penalty = torch.as_tensor(segment.coupled).expand_as(segment.preconditioner)[index] * P
    A, S = torch.diag(penalty.sum(0)), torch.diag(penalty.sum(1))
    scaled = [[[P.sqrt() * g[index] for g in row] for row in rows] for rows in segment.columns]
    for weight, rows in zip(segment.weights, scaled, strict=True):
        for row in rows:
            for G in row:
                A = A + weight / len(rows) * G.T @ G
                S = S + weight / len(rows) * G @ G.T
    Q_A, Q_S = torch.eye(len(A), dtype=A.dtype) if kept else torch.linalg.eigh(A)[1], torch.linalg.eigh(S)[1]
    values = (Q_S**2).T @ penalty @ Q_A**2
    for weight, rows in zip(segment.weights, scaled, strict=True):
        values = values + weight / len(rows) * sum((Q_S.T @ G @ Q_A) ** 2 for row in rows for G in row)
    return Block("", index, A, S, Q_A, Q_S, values)


def metric_operators(segment):
    """(F, S) acting on query gradients: ``P^1/2 phi_F(M) P^1/2`` and ``P^-1/2 phi_S(M) P^1/2``."""
    blocks = [metric_block(segment, *block) for block in zip(segment.indices, segment.kept, strict=True)]
    root = torch.diag(segment.preconditioner.sqrt())
    decay = torch.as_tensor(segment.decoupled, dtype=torch.float64).expand_as(segment.preconditioner)
    rho = [float(decay[index].mean()) for index in segment.indices]
    F, S = (
        scatter_blocks(blocks, [b.matrix(phi(segment.h, r)) for b, r in zip(blocks, rho, strict=True)])
        for phi in (phi_F, phi_S)
    )
    return root @ F @ root, torch.linalg.inv(root) @ S @ root


def paper_operators(segment, plain_blocks, dampings):
    """(F, S) with the diagonal of H in the exponential and a damped EK-FAC inverse: ``plain_blocks`` of H itself."""
    diagonal = sum(
        w / len(rows) * sum((row**2).sum(0) for row in rows)
        for w, rows in zip(segment.weights, segment.columns, strict=True)
    )
    S = torch.exp(-segment.h * (segment.preconditioner * (diagonal + segment.coupled) + segment.decoupled))
    inverse = scatter_blocks(
        plain_blocks, [b.matrix(lambda s, d=d: 1 / (s + d)) for b, d in zip(plain_blocks, dampings, strict=True)]
    )
    return inverse @ torch.diag(1 - S), torch.diag(S)


def walk(segments, operators, query_gradients):
    """(n_query, n_train): METHOD section 4 with given (F, S) per segment, in time order."""
    tau, u = 0.0, query_gradients.T
    for segment, (F, S) in reversed(list(zip(segments, operators, strict=True))):
        average = sum(w * g for w, g in zip(segment.weights, segment.row_gradients, strict=True))
        tau = tau - (F @ u).T @ average.T / len(average)
        u = S @ u
    return tau
