"""A block-diagonal curvature M coupled across layers by the whole matrix H (METHOD section 8), in dense matrices.

M and H are (P, P), shifted by what decay and damping add, in coordinates where one function is asked of all of them.
"""

from __future__ import annotations

import torch

from ._factors import blocks_matrix, phi_dense, scatter_blocks
from ._metric import metric_block
from ._scores import phi_F, phi_S


def layer_positions(blocks):
    """Flat positions of every layer: groups of a convolution are one."""
    layers = {}
    for block in blocks:
        layers.setdefault(block.label.split("[")[0], []).append(block.index.flatten())
    return [torch.cat(parts) for parts in layers.values()]


def coupled(M, H, v, functions, ridge, layers, n_iter=0, decay=None):
    """``f(H) v`` for every one of some functions of one vector, the first of which decides on the space.

    ``n_iter=0``: how far to go along each layer's part of ``f(M) v``; further functions are of M, its curvature, which
    is all but ``decay``, times what H is of M along the solution. More: Krylov rounds, which solve with ``M + ridge``
    for what is left of ``(H + ridge) x = v``.
    """
    first = phi_dense(M, functions[0]) @ v
    directions, V = [first], spanned([first], layers)
    for _ in range(n_iter):
        small = V.T @ H @ V + ridge * torch.eye(V.shape[1], dtype=V.dtype)
        residual = v - (H @ V + ridge * V) @ torch.linalg.solve(small, V.T @ v)
        if residual.norm() < 1e-13 * v.norm():
            break
        directions.append(torch.linalg.solve(M + ridge * torch.eye(len(M), dtype=M.dtype), residual))
        V = spanned(directions, layers)
    if n_iter:
        projected = V @ phi_dense(V.T @ H @ V, functions[0]) @ V.T @ v
    else:
        columns = torch.stack([on(first, layer) for layer in layers], dim=1)
        V = columns / columns.norm(dim=0)
        # With this a layer's part solves its own equation where it is alone.
        own = torch.stack([(x @ v - x @ M @ x) / (x @ x) for x in columns.T]).clamp_min(0)
        x = V @ torch.linalg.solve(V.T @ H @ V + torch.diag(own), V.T @ v)
        if len(functions) == 1:
            return [x]
        pace = x @ (H - decay) @ x / (x @ (M - decay) @ x)
        return [x, *(phi_dense(pace * (M - decay) + decay, f) @ v for f in functions[1:])]
    others = [
        phi_dense(M, f) @ v + V @ (phi_dense(V.T @ H @ V, f) - phi_dense(V.T @ M @ V, f)) @ V.T @ v
        for f in functions[1:]
    ]
    return [projected, *others]


def on(vector, layer):
    """The part of a vector on a layer, zero elsewhere."""
    part = torch.zeros_like(vector)
    part[layer] = vector[layer]
    return part


def spanned(directions, layers):
    """An orthonormal basis of what the layers' parts of some vectors span."""
    bases = []
    for layer in layers:
        columns = torch.stack([on(x / x.norm(), layer) for x in directions], dim=1)
        left, sizes, _ = torch.linalg.svd(columns, full_matrices=False)
        bases.append(left[:, sizes > 1e-12 * sizes[0]])
    return torch.cat(bases, dim=1)


class CoupledSegment:
    """A segment of plain descent: a ReferenceSegment with blocks, and the whole matrix of the same checkpoints."""

    def __init__(self, segment, H):
        h, rho, c = segment.h, segment.rho, segment.second
        size = len(H)
        root = torch.as_tensor(h, dtype=torch.float64).expand(size).sqrt()
        decay = torch.diag(torch.as_tensor(rho, dtype=torch.float64).expand(size))
        self.M, self.H = (root[:, None] * (A + decay) * root for A in (blocks_matrix(segment.curvature), H))
        self.decay = root[:, None] * decay * root
        self.root, self.layers = root, layer_positions(segment.curvature)
        self.functions = [phi_F(1.0, 0.0, c), phi_S(1.0, 0.0, c)]
        self.weights, self.row_gradients = segment.weights, segment.row_gradients

    def apply(self, u, n_iter):
        """``F u`` and ``S u`` of a query's gradient."""
        F, S = coupled(self.M, self.H, self.root * u, self.functions, 1.0, self.layers, n_iter, self.decay)
        return self.root * F, S / self.root


class CoupledMetricSegment(CoupledSegment):
    """The same of a MetricSegment, whose blocks have the labels of ``plain`` ones."""

    def __init__(self, segment, plain):
        P, size = segment.preconditioner, len(segment.preconditioner)
        blocks = [metric_block(segment, *block) for block in zip(segment.indices, segment.kept, strict=True)]
        root = P.sqrt()
        H = torch.diag(torch.as_tensor(segment.coupled, dtype=torch.float64).expand(size) * P)
        for weight, rows in zip(segment.weights, segment.columns, strict=True):
            for row in rows:
                scaled = row * root
                H = H + weight / len(rows) * scaled.T @ scaled
        self.layers = layer_positions(plain)
        decay = torch.as_tensor(segment.decoupled, dtype=torch.float64).expand(size).clone()
        for layer in self.layers:
            decay[layer] = decay[layer].mean()
        M = scatter_blocks(blocks, [block.matrix() for block in blocks])
        self.decay = segment.h * torch.diag(decay)
        self.M, self.H = (segment.h * A + self.decay for A in (M, H))
        self.root = (segment.h * P).sqrt()
        self.functions = [phi_F(1.0, 0.0), phi_S(1.0, 0.0)]
        self.weights, self.row_gradients = segment.weights, segment.row_gradients


def coupled_source_scores(segments, query_gradients, n_iter=0):
    """(n_query, n_train): METHOD section 4 with coupled segments, in time order."""
    tau = []
    for u in query_gradients:
        total = 0.0
        for segment in reversed(segments):
            average = sum(w * g for w, g in zip(segment.weights, segment.row_gradients, strict=True))
            F, u = segment.apply(u, n_iter)
            total = total - average @ F / len(average)
        tau.append(total)
    return torch.stack(tau)


def coupled_influence_scores(blocks, H, query_gradients, train_gradients, added, n_iter=0):
    """(n_query, n_train): a Newton step with ``added`` (a number or (P,)) on the diagonal."""
    decay = torch.diag(torch.as_tensor(added, dtype=torch.float64).expand(len(H)))
    M, H, layers = blocks_matrix(blocks) + decay, H + decay, layer_positions(blocks)
    solved = [coupled(M, H, u, [torch.reciprocal], 0.0, layers, n_iter)[0] for u in query_gradients]
    return -torch.stack(solved) @ train_gradients.T / len(train_gradients)
