"""Covariances of inputs and output gradients, and the eigenbases that Kronecker-factored curvatures take from them."""

from __future__ import annotations

import torch

from ..gradients.algebra import output_moments, whole_moments
from ._eigen import Basis
from ._fisher import require_finite
from ._shared_passes import summed_by_blocks

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
    result = []
    for block, (a, s, count) in zip(stream.blocks, summed_by_blocks(_sums, stream, c, basis)):
        a = None if a is None else a / count
        s = None if s is None else s / stream.n_rows
        for name, value in (("input", a), ("output-gradient", s)):
            require_finite(value, f"the {name} covariance", block, stream.checkpoints[c])
        result.append((a, s))
    return result


def _sums(stream, c, basis):
    """Sums over the rows: per block [input moment, output moment, positions or rows that the first is a sum over]."""
    blocks = stream.blocks
    sums = [[None, None] for _ in blocks]
    counts = [0] * len(blocks)
    by_factors = basis == "kfac" and stream.metric is None
    for batch in stream.columns(c):
        for i, (block, columns) in enumerate(zip(blocks, batch)):
            wanted = [block.shape[2] <= MAX_BASIS or block.has_diagonal_input, block.shape[1] <= MAX_BASIS]
            if by_factors and columns[0].has_factors:
                counts[i] += len(columns[0]) * columns[0].n_positions
                # The columns of one row share its inputs: they count once.
                a = columns[0].input_moment() if wanted[0] else None
                parts = a, output_moments(columns) if wanted[1] else None
            else:
                counts[i] += len(columns[0])
                parts = whole_moments(columns, *wanted)
            sums[i] = [_add(total, new) for total, new in zip(sums[i], parts)]
    return [[a, s, count] for (a, s), count in zip(sums, counts)]


def _add(total, part):
    if part is None:
        return total
    part = part.double()
    return part if total is None else total.add_(part)


def averaged_moments(stream, compute):
    """``compute(stream, c)``, :func:`moments` or kept ones, averaged over the checkpoints, with those of a penalty."""
    total = None
    for c, weight in enumerate(stream.weights):
        here = compute(stream, c)
        if total is None:
            total = [[None if m is None else m * weight for m in pair] for pair in here]
            continue
        for pair, new in zip(total, here):
            for side in (0, 1):
                if pair[side] is not None:
                    pair[side].add_(new[side], alpha=float(weight))
    for (a, s), penalty in zip(total, stream.penalties):
        if penalty is not None:  # a diagonal matrix is the second moment of rows with one entry each
            if a is not None:
                (a if a.dim() == 2 else a.diagonal(dim1=1, dim2=2)).add_(penalty.sum(1))
            if s is not None:
                s.diagonal(dim1=1, dim2=2).add_(penalty.sum(2))
    return total


def whole_eigenvalues(stream, values, basis="kfac"):
    """The eigenvalues of :func:`eigenbases` that are those of the curvature itself, (groups, out, in); else None.

    A row's gradient of a block with one line or one column is a vector: ``E[G G^T]`` is all of the curvature then.
    """
    found = []
    for block, (s_values, a_values) in zip(stream.blocks, values):
        whole = stream.metric is not None or basis != "kfac" or not block.has_factors
        own = s_values if block.shape[2] == 1 else a_values if block.shape[1] == 1 else None
        found.append(own.reshape(block.shape) if whole and own is not None else None)
    return found


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
    values, vectors = _of_reached((moment + moment.transpose(1, 2)) / 2)
    vectors = vectors.to(dtype)
    # Entries below the normal range would slow every later product severalfold and carry nothing.
    vectors[vectors.abs() < torch.finfo(dtype).tiny] = 0
    return values.clamp_min(0), vectors.contiguous()


def _of_reached(moment):
    """Eigenvalues, ascending, and eigenvectors; what no row reaches keeps its own coordinates.

    Units that are off for every row, and inputs that are always zero, have lines of zeros. The work is the cube of the
    number of the others.
    """
    if bool(moment.diagonal(dim1=1, dim2=2).all()):
        return _decomposed(moment)
    reached = (moment != 0).any(2).any(0)
    n_others = len(reached) - int(reached.sum())
    if not n_others:
        return _decomposed(moment)
    values, vectors = torch.zeros_like(moment[:, 0]), torch.zeros_like(moment)
    vectors[:, ~reached, torch.arange(n_others, device=moment.device)] = 1.0  # zeros, the least eigenvalues, first
    if n_others < len(reached):
        found = _decomposed(moment[:, reached][:, :, reached])
        values[:, n_others:], vectors[:, reached, n_others:] = found
    return values, vectors


def _decomposed(moment):
    if moment.device.type == "mps":  # no float64 there
        return tuple(t.to(moment.device) for t in torch.linalg.eigh(moment.cpu().double()))
    return torch.linalg.eigh(moment)
