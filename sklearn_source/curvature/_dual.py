"""Inner products of Fisher columns with each other, which decide on the curvature that they span, and with vectors."""

from __future__ import annotations

import numpy as np
import torch

from ..gradients.algebra import Factored, add_pairs, even_chunks, to_meet

# Bytes of the formed gradients that meet the others at a time.
_FORMED_BYTES = 256 * 2**20


def gram(batches, scale):
    """``R D R^T`` of columns R: (n_columns, n_columns), float64, on the CPU.

    Parameters
    ----------
    batches : list of list of gradients
        Columns, some at a time, one gradient per block.
    scale : list of (float or tensor (groups, out, in)), one per block
        D.

    Notes
    -----
    Where blocks are outer products of one position and D is one number per block, a pair costs in + out
    multiplications per block, else in * out.
    """
    bounds = np.cumsum([0] + [len(columns[0]) for columns in batches])
    total = torch.zeros(bounds[-1], bounds[-1], dtype=torch.float64)
    for i, left in enumerate(batches):
        formed = sum(int(np.prod(column.shape)) * column.tensors()[-1].element_size() for column in left)
        for some in even_chunks(len(left[0]), _FORMED_BYTES // max(formed, 1)):
            scaled = [to_meet([column[some]], factor) for column, factor in zip(left, scale)]
            lines = slice(bounds[i] + some.start, bounds[i] + some.stop)
            for j in range(i + 1):
                part = _meet(scaled, batches[j]).cpu()
                columns = slice(bounds[j], bounds[j + 1])
                total[lines, columns] = part
                if j < i:
                    total[columns, lines] = part.T
    return (total + total.T) / 2


def on_columns(batches, vectors):
    """``R v`` of vectors (n, groups, out, in), one tensor per block: (n, n_columns), float64, on their device."""
    flat = [v.flatten(1).contiguous() for v in vectors]
    parts = [flat[0].new_zeros((len(flat[0]), 0))]
    for columns in batches:
        part = flat[0].new_zeros((len(flat[0]), len(columns[0])))
        for v, column in zip(flat, columns):
            column.inner_(v, part)
        parts.append(part)
    return torch.cat(parts, dim=1).double()


def _meet(scaled, columns):
    like = columns[0].tensors()[-1]
    out = torch.zeros(len(scaled[0]), len(columns[0]), dtype=torch.float64, device=like.device)
    for left, right in zip(scaled, columns):
        part = like.new_zeros(out.shape)
        out += add_pairs(part, left, right) if isinstance(left, Factored) else right.inner_(left, part)
    return out
