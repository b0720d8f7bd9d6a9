"""Estimate block-diagonal curvatures from a stream of Fisher columns."""

from __future__ import annotations

import functools

import torch

from ..gradients.algebra import Dense, rotate_matrices, squared_in_basis, whole_moments
from ._eigen import Basis, EigenCurvature

# Above this width a side keeps its own coordinates: the eigendecomposition of a denser basis takes minutes and
# gigabytes.
MAX_BASIS = 12_288


def moments(stream, c, basis="kfac"):
    """Second moments at checkpoint ``c``: per block (input moment, output moment), float64, not yet in a basis.

    For a factored block: ``A`` averaged over rows and positions, ``S`` summed over positions and Fisher columns and
    averaged over rows. For a dense one, for any in a metric, and with ``basis="shampoo"``: ``E[G^T G]`` and
    ``E[G G^T]``. Sides wider than ``MAX_BASIS`` are None. Of an embedding's input moment the diagonal (groups, in):
    of one-hot vectors nothing else is there, and of whole gradients nothing else is wanted.
    """
    blocks = stream.blocks
    sums = [[None, None] for _ in blocks]
    counts = [0] * len(blocks)
    by_factors = basis == "kfac" and stream.metric is None
    for batch in stream.columns(c):
        for i, (block, columns) in enumerate(zip(blocks, batch)):
            wanted = [block.shape[2] <= MAX_BASIS or block.kind == "indexed", block.shape[1] <= MAX_BASIS]
            if by_factors and not isinstance(columns[0], Dense):
                counts[i] += len(columns[0]) * columns[0].n_positions
                # The columns of one row share its inputs: they count once.
                a = columns[0].input_moment() if wanted[0] else None
                parts = [(a, None), *((None, column.output_moment()) for column in columns if wanted[1])]
            else:
                counts[i] += len(columns[0])
                parts = [whole_moments(columns, *wanted)]
            for part in parts:
                sums[i] = [_add(total, new) for total, new in zip(sums[i], part)]
    result = []
    for block, (a, s), count in zip(blocks, sums, counts):
        a = None if a is None else a / count
        s = None if s is None else s / stream.n_rows
        for name, value in (("input", a), ("output-gradient", s)):
            require_finite(value, f"the {name} covariance", block, stream.checkpoints[c])
        result.append((a, s))
    return result


def _add(total, part):
    if part is None:
        return total
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


def averaged_moments(stream, compute):
    """:func:`moments` averaged over the stream's checkpoints with their weights, those of a penalty added."""
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
    for (a, s), penalty in zip(total, _penalties(stream)):
        if penalty is not None:  # a diagonal matrix is the second moment of rows with one entry each
            if a is not None:
                (a if a.dim() == 2 else a.diagonal(dim1=1, dim2=2)).add_(penalty.sum(1))
            if s is not None:
                s.diagonal(dim1=1, dim2=2).add_(penalty.sum(2))
    return total


def _penalties(stream):
    """The penalty of every block in float64, or None."""
    if stream.metric is None:
        return [None for _ in stream.blocks]
    return [None if d is None else d.double() for d in stream.metric.penalty]


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
    for i, (basis, penalty) in enumerate(zip(bases, _penalties(stream))):
        if penalty is not None:
            squares = [None if q is None else q.double().square() for q in (basis.left, basis.right)]
            totals[i] = totals[i] + rotate_matrices(penalty[None], *squares)[0]
    return totals


def fit_ekfac(stream, compute=None, basis="kfac"):
    """Eigenvalue-corrected Kronecker factorisation (George et al. 2018), one for all checkpoints of the stream.

    ``compute`` stands for :func:`moments` where these are kept somewhere.

    Cost: one forward pass and one backward pass per Fisher column for every checkpoint, twice where the gradients do
    not fit into the stream's cache; two eigendecompositions per layer.
    """
    dtype = _dtype(stream)
    compute = compute or functools.partial(moments, basis=basis)
    bases, _ = eigenbases(averaged_moments(stream, compute), dtype)
    return EigenCurvature(bases, [v.to(dtype) for v in corrected_eigenvalues(stream, bases)])


def fit_kfac(stream, compute=None, basis="kfac"):
    """Kronecker factorisation (Martens & Grosse 2015; positions as in K-FAC-expand, Eschenhagen et al. 2023).

    Moments of whole gradients make ``E[GG^T] (x) E[G^T G] / E[|G|^2]``, which has the block's trace.
    """
    dtype = _dtype(stream)
    compute = compute or functools.partial(moments, basis=basis)
    whole = basis != "kfac" or stream.metric is not None
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
        if whole or block.kind not in ("factored", "indexed"):
            trace = s_values.sum(1)[:, None, None]
            product = product / trace.clamp_min(torch.finfo(trace.dtype).tiny)
        eigenvalues.append(product.to(dtype))
    return EigenCurvature(bases, eigenvalues)


def fit_diagonal(stream, compute=None, basis=None):
    """The diagonal of the Fisher matrix. Cost: one pass over the rows for every checkpoint."""
    bases = [Basis() for _ in stream.blocks]
    dtype = _dtype(stream)
    return EigenCurvature(bases, [v.to(dtype) for v in corrected_eigenvalues(stream, bases)])


def fit_identity(stream, compute=None, basis=None):
    """``H = I``, ``P`` in a metric: no pass over the rows."""
    network = stream.network
    values = [torch.ones(block.shape, dtype=network.dtype, device=network.device) for block in stream.blocks]
    if stream.metric is not None:
        values = [one * root.square() for one, root in zip(values, stream.metric.roots)]
        values = [v if d is None else v + d for v, d in zip(values, stream.metric.penalty)]
    return EigenCurvature([Basis() for _ in values], values)


def _dtype(stream):
    return stream.network.dtype
