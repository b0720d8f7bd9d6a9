"""Estimate block-diagonal curvatures from a stream of Fisher columns."""

from __future__ import annotations

import torch

from ..gradients import Dense, squared_in_basis
from ._eigen import Basis, EigenCurvature

# Above this width a side keeps its own coordinates: the eigendecomposition of a denser basis takes minutes and
# gigabytes.
MAX_BASIS = 12_288


def moments(stream, c):
    """Second moments at checkpoint ``c``: per block (input moment, output moment), float64, not yet in a basis.

    For a factored block: ``A`` averaged over rows and positions, ``S`` summed over positions and Fisher columns and
    averaged over rows. For a dense one ``E[G^T G]`` and ``E[G G^T]``. Sides wider than ``MAX_BASIS`` are None. Of an
    embedding's ``A`` the diagonal (groups, in) alone: of one-hot vectors nothing else is there.
    """
    blocks = stream.blocks
    sums = [[None, None] for _ in blocks]
    counts = [0] * len(blocks)
    for batch in stream.columns(c):
        for i, (block, columns) in enumerate(zip(blocks, batch)):
            factored = not isinstance(columns[0], Dense)
            counts[i] += len(columns[0]) * (columns[0].n_positions if factored else 1)
            if block.shape[2] <= MAX_BASIS or block.kind == "indexed":
                # The columns of one row share its inputs: they count once.
                for column in columns[:1] if factored else columns:
                    sums[i][0] = _add(sums[i][0], column.input_moment())
            if block.shape[1] <= MAX_BASIS:
                for column in columns:
                    sums[i][1] = _add(sums[i][1], column.output_moment())
    result = []
    for block, (a, s), count in zip(blocks, sums, counts):
        a = None if a is None else a / count
        s = None if s is None else s / stream.n_rows
        for name, value in (("input", a), ("output-gradient", s)):
            require_finite(value, f"the {name} covariance", block, stream.checkpoints[c])
        result.append((a, s))
    return result


def _add(total, part):
    part = part.double()
    return part if total is None else total.add_(part)


def require_finite(value, what, block, checkpoint):
    if value is not None and not bool(torch.isfinite(value).all()):
        where = f"at step {checkpoint.step}" if checkpoint.step >= 0 else "at the trained weights"
        raise ValueError(
            f"{what} of layer {block.name!r} {where} is not finite: the gradients there overflow or "
            "the weights are not finite. Look at this checkpoint's loss; attribute a shorter trajectory or leave the "
            "layer out with layers="
        )


def averaged_moments(stream, compute=moments):
    """:func:`moments` averaged over the stream's checkpoints with their weights."""
    total = None
    for c, weight in enumerate(stream.weights):
        found = compute(stream, c)
        if total is None:
            total = [[None if m is None else m * weight for m in pair] for pair in found]
            continue
        for pair, new in zip(total, found):
            for side in (0, 1):
                if pair[side] is not None:
                    pair[side].add_(new[side], alpha=float(weight))
    return total


def eigenbases(pairs, dtype):
    """One orthogonal basis per block, and the eigenvalues of the two moments (float64, None where there is no side)."""
    bases, values = [], []
    for a, s in pairs:
        (s_values, left), (a_values, right) = _eigh(s, dtype), _eigh(a, dtype)
        bases.append(Basis(left, right))
        values.append((s_values, a_values))
    return bases, values


def _eigh(moment, dtype):
    """Eigenvectors in the working dtype, decomposed in float64 (a float32 decomposition loses small directions)."""
    if moment is None:
        return None, None
    if moment.dim() == 2:  # a diagonal
        return moment, None
    if moment.shape[1] == 1:  # a basis of one direction is the identity
        return moment[:, :, 0].clamp_min(0), None
    moment = (moment + moment.transpose(1, 2)) / 2
    if moment.device.type == "mps":  # no float64 there
        values, vectors = (t.to(moment.device) for t in torch.linalg.eigh(moment.cpu().double()))
    else:
        values, vectors = torch.linalg.eigh(moment)
    vectors = vectors.to(dtype)
    # Entries below the normal range would slow every later product severalfold and carry nothing.
    vectors[vectors.abs() < torch.finfo(dtype).tiny] = 0
    return values.clamp_min(0), vectors.contiguous()


def corrected_eigenvalues(stream, bases):
    """``sum_c w_c mean_n [Q_S^T G_n Q_A]^2`` per block: (groups, out, in) in float64."""
    totals = [0.0] * len(bases)
    for c, weight in enumerate(stream.weights):
        here = [0.0] * len(bases)
        for batch in stream.columns(c):
            for i, (basis, columns) in enumerate(zip(bases, batch)):
                here[i] = here[i] + squared_in_basis(columns, basis.left, basis.right).double()
        for i, (block, value) in enumerate(zip(stream.blocks, here)):
            require_finite(value, "the curvature", block, stream.checkpoints[c])
            totals[i] = totals[i] + value * (float(weight) / stream.n_rows)
    return totals


def fit_ekfac(stream, compute=moments):
    """Eigenvalue-corrected Kronecker factorisation (George et al. 2018), one for all checkpoints of the stream.

    Cost: one forward pass and one backward pass per Fisher column for every checkpoint, twice where the gradients do
    not fit into the stream's cache; two eigendecompositions per layer.
    """
    dtype = _dtype(stream)
    bases, _ = eigenbases(averaged_moments(stream, compute), dtype)
    return EigenCurvature(bases, [v.to(dtype) for v in corrected_eigenvalues(stream, bases)])


def fit_kfac(stream, compute=moments):
    """Kronecker factorisation (Martens & Grosse 2015; positions as in K-FAC-expand, Eschenhagen et al. 2023).

    A block without a factored form has ``E[GG^T] (x) E[G^T G] / E[|G|^2]``, which has its trace.
    """
    dtype = _dtype(stream)
    bases, values = eigenbases(averaged_moments(stream, compute), dtype)
    eigenvalues = []
    for block, (s_values, a_values) in zip(stream.blocks, values):
        if s_values is None or a_values is None:
            raise ValueError(
                f"curvature='kfac' needs both covariances of {block.name!r}, whose {block.shape[1]} x "
                f"{block.shape[2]} matrix has a side wider than {MAX_BASIS}: use curvature='ekfac' or 'diagonal', or "
                "leave it out with layers="
            )
        product = s_values[:, :, None] * a_values[:, None, :]
        if block.kind not in ("factored", "indexed"):
            trace = s_values.sum(1)[:, None, None]
            product = product / trace.clamp_min(torch.finfo(trace.dtype).tiny)
        eigenvalues.append(product.to(dtype))
    return EigenCurvature(bases, eigenvalues)


def fit_diagonal(stream, compute=None):
    """The diagonal of the Fisher matrix. Cost: one pass over the rows for every checkpoint."""
    bases = [Basis() for _ in stream.blocks]
    dtype = _dtype(stream)
    return EigenCurvature(bases, [v.to(dtype) for v in corrected_eigenvalues(stream, bases)])


def fit_identity(stream, compute=None):
    """``H = I``: no pass over the rows."""
    network = stream.network
    ones = [torch.ones(block.shape, dtype=network.dtype, device=network.device) for block in stream.blocks]
    return EigenCurvature([Basis() for _ in ones], ones)


def _dtype(stream):
    return stream.network.dtype
