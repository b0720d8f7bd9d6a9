"""EK-FAC, K-FAC and diagonal blocks of a segment, and phi(H) through explicit Kronecker products."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ._dense import column_gradients, make_layout
from ._layers import FACTORED, joins_bias, layer_gradient_matrices


@dataclass
class Block:
    """One parameter matrix V (out, in): ``H V = Q_S [eigenvalues * (Q_S^T V Q_A)] Q_A^T``.

    ``index`` (out, in) gives the flat positions of its entries. ``A`` (in, in) and ``S`` (out, out) are the averaged
    covariances (None for kinds that have none).
    """

    label: str
    index: torch.Tensor
    A: torch.Tensor | None
    S: torch.Tensor | None
    Q_A: torch.Tensor
    Q_S: torch.Tensor
    eigenvalues: torch.Tensor

    def rotation(self) -> torch.Tensor:
        """``Q_S kron Q_A``: acts on row-major vec(V)."""
        return torch.kron(self.Q_S.contiguous(), self.Q_A.contiguous())

    def matrix(self, phi=None) -> torch.Tensor:
        """phi(H) of the block, (out * in, out * in) on row-major vec(V); H itself without ``phi``."""
        values = self.eigenvalues.reshape(-1)
        return self.rotation() @ torch.diag(values if phi is None else phi(values)) @ self.rotation().T


def factored_layers(module, layout, dense) -> dict[str, list[str]]:
    """Layers whose weight is differentiated, has a factored form and is not in ``dense``, and the layers it is shared
    with, which must be of the same kind."""
    owners = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    found = {}
    for name, submodule in module.named_modules():
        if not isinstance(submodule, FACTORED) or f"{name}.weight" not in layout.names:
            continue
        if {f"{name}.weight", f"{name}.bias"} & set(dense):
            continue
        sharing = [other.rpartition(".")[0] for other in owners[id(submodule.weight)]]
        if all(type(module.get_submodule(other)) is type(submodule) for other in sharing):
            found[name] = [other for other in sharing if other != name]
    return found


def dense_index(layout, name) -> torch.Tensor:
    """A parameter without factored form as a matrix: a vector is (p, 1), anything else (first dimension, rest)."""
    index = layout.indices(name)
    return index.reshape(-1, 1) if index.dim() < 2 else index.reshape(index.shape[0], -1)


def block_statistics(module, params, columns_fn, X, y, names, dense):
    """At one checkpoint: ``{label: (index, A, S)}``."""
    layout = make_layout(module, params, names)
    statistics, covered = {}, set()
    for layer, others in factored_layers(module, layout, dense).items():
        for group in layer_gradient_matrices(module, params, layer, columns_fn, X, y, names, others):
            a_all = torch.cat(group.inputs)
            A = sum(torch.outer(a, a) for a in a_all) / len(a_all)  # mean over rows and positions
            S = sum(torch.outer(g, g) for columns in group.output_gradients for gs in columns for g in gs)
            statistics[group.label] = (group.index, A, S / len(group.inputs))  # mean over rows, sum over positions
        covered.add(f"{layer}.weight")
        if not others and joins_bias(module.get_submodule(layer), layer, layout):
            covered.add(f"{layer}.bias")
    gradients, _ = column_gradients(module, params, columns_fn, X, y, names)
    for name in layout.names:
        if name not in covered:
            index = dense_index(layout, name)
            matrices = [[g[index] for g in row] for row in gradients]
            A = sum(G.T @ G for row in matrices for G in row) / len(matrices)
            S = sum(G @ G.T for row in matrices for G in row) / len(matrices)
            statistics[name] = (index, A, S)
    return statistics, gradients


def block_factors(module, checkpoints, columns_fn, X, y=None, kind="ekfac", names=None, dense=()) -> list[Block]:
    """The curvature blocks of a segment (METHOD section 3), covering every differentiated parameter once.

    Parameters
    ----------
    checkpoints : list of (params, weight), weights summing to 1
    columns_fn : cotangent columns of a row: exact Fisher all of them, empirical Fisher the loss's gradient
    kind : "ekfac", "kfac", "diagonal" or "identity" (H = I)
    dense : parameter names whose layer is denied its factored form

    Notes
    -----
    K-FAC of a dense parameter is ``lambda_S lambda_A^T / trace(A)``. There A = E[G^T G] and S = E[G G^T] have the same
    trace, that of the block itself, and the bare product would be in squared units.
    """
    if abs(sum(weight for _, weight in checkpoints) - 1.0) > 1e-9:
        raise ValueError("checkpoint weights must sum to 1")
    per_checkpoint = [block_statistics(module, params, columns_fn, X, y, names, dense) for params, _ in checkpoints]
    weights = [weight for _, weight in checkpoints]
    blocks = []
    for label, (index, first_A, _) in per_checkpoint[0][0].items():
        A = sum(w * statistics[label][1] for w, (statistics, _) in zip(weights, per_checkpoint, strict=True))
        S = sum(w * statistics[label][2] for w, (statistics, _) in zip(weights, per_checkpoint, strict=True))
        lambda_A, Q_A = torch.linalg.eigh(A)
        if torch.equal(A, torch.diag(torch.diag(A))):  # an embedding's: its own coordinates, in their order
            lambda_A, Q_A = torch.diag(A), torch.eye(len(A), dtype=A.dtype)
        lambda_S, Q_S = torch.linalg.eigh(S)
        if kind in ("diagonal", "identity"):
            A = S = None
            Q_S = torch.eye(index.shape[0], dtype=first_A.dtype)
            Q_A = torch.eye(index.shape[1], dtype=first_A.dtype)
        if kind == "identity":
            eigenvalues = torch.ones(index.shape, dtype=first_A.dtype)
        elif kind == "kfac":
            eigenvalues = torch.outer(lambda_S, lambda_A)
            if label in make_layout(module, checkpoints[0][0], names).names:  # a dense block carries its own name
                eigenvalues = eigenvalues / torch.trace(A)
        else:
            eigenvalues = 0.0
            for weight, (_, gradients) in zip(weights, per_checkpoint, strict=True):
                squares = sum((Q_S.T @ g[index] @ Q_A) ** 2 for row in gradients for g in row) / len(gradients)
                eigenvalues = eigenvalues + weight * squares
        blocks.append(Block(label, index, A, S, Q_A, Q_S, eigenvalues))
    return blocks


def scatter_blocks(blocks, block_matrices) -> torch.Tensor:
    """(P, P) matrix with each block's matrix at its flat positions; every coordinate must be covered exactly once."""
    positions = torch.cat([block.index.reshape(-1) for block in blocks])
    if not torch.equal(positions.sort().values, torch.arange(len(positions))):
        raise ValueError("the blocks must cover every coordinate of the flat vector exactly once")
    full = torch.zeros(len(positions), len(positions), dtype=block_matrices[0].dtype)
    for block, matrix in zip(blocks, block_matrices, strict=True):
        where = block.index.reshape(-1)
        full[where[:, None], where[None, :]] = matrix
    return full


def blocks_matrix(blocks, phi=None) -> torch.Tensor:
    """(P, P) phi(H) of the block-diagonal H; H itself without ``phi``."""
    return scatter_blocks(blocks, [block.matrix(phi) for block in blocks])


def apply_phi(blocks, phi, V) -> torch.Tensor:
    """``phi(H) v`` for every row v of V (n, P), one explicit Kronecker product per block."""
    result = torch.full_like(V, float("nan"))  # a coordinate that no block covers shows itself
    for block in blocks:
        where = block.index.reshape(-1)
        result[:, where] = V[:, where] @ block.matrix(phi).T
    return result


def phi_dense(H, phi) -> torch.Tensor:
    """(P, P) ``phi(H) = E diag(phi(lambda)) E^T`` of a symmetric matrix, by eigh in float64."""
    values, vectors = torch.linalg.eigh(H.double())
    return vectors @ torch.diag(phi(values)) @ vectors.T
