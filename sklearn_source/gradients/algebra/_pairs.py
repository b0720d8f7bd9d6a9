"""Inner products of two sets of factored gradients, pair by pair, with none of their matrices formed.

``<sum_s g_s a_s^T, sum_t g_t a_t^T> = sum_st (a_s . a_t) (g_s . g_t)``: per pair of rows T^2 (in + out) multiplications
in place of in * out, which for the one position of a perceptron's layer is hundreds of times less.
"""

from __future__ import annotations

import torch

from ._factored import Factored
from ._products import CHUNK_BYTES, even_chunks, steady_product


def to_meet(parts, factor=1.0):
    """One block's query gradients as training gradients meet them.

    Parameters
    ----------
    parts : list of gradients
        Of the queries, batch by batch, in one form.
    factor : float, or tensor (groups, out, in)
        What they are multiplied by.

    Returns
    -------
    gradients : Factored, or tensor (n_query, groups * out * in)
        Factored where pairs are less work than matrices.
    """
    first = parts[0]
    if isinstance(first, Factored) and not isinstance(factor, torch.Tensor):
        (_, out, inp), T = first.shape, first.n_positions
        if 2 * T * T * (out + inp) <= out * inp and all(part.n_positions == T for part in parts):
            return Factored(torch.cat([part.a for part in parts]), torch.cat([part.g * factor for part in parts]))
    return torch.cat([(part.matrix() * factor).flatten(1) for part in parts])


def pairs_pay(blocks, n_query, n_columns, n_rows, n_bytes):
    """Whether sums of columns meet rows with less work column by column than summed.

    Not where matrices of the columns, of blocks whose pairs are more work than these, would take too much memory: of
    an embedding or a convolution each is far more numbers than the factors that are held.

    Parameters
    ----------
    blocks : list over blocks of lists of gradients
        The columns, and further vectors.
    n_query, n_columns, n_rows : int
        How many sums there are, of how many columns, and how many rows they meet.
    n_bytes : int
        What such matrices may take.
    """
    apart = together = formed = 0.0
    for parts in blocks:
        first = parts[0]
        groups, out, inp = first.shape
        size, T = groups * out * inp, first.n_positions
        alike = all(isinstance(part, Factored) and part.n_positions == T for part in parts)
        pairs = alike and 2 * T * T * (out + inp) <= out * inp
        apart += (n_columns + n_query) * n_rows * (groups * T * T * (out + inp) if pairs else size)
        formed += 0 if pairs else (n_columns + n_query) * size * first.tensors()[-1].element_size()
        together += n_query * (n_rows + 2 * n_columns) * size  # vectors meet the columns, which are summed
    return formed <= n_bytes and apart + n_query * n_columns * n_rows < together


def met_bytes(gradients, factors):
    """Bytes per query of what :func:`to_meet` gives of these gradients, one per block, times these factors."""
    values = [to_meet([gradient], factor) for gradient, factor in zip(gradients, factors)]
    tensors = [t for v in values for t in (v.tensors() if isinstance(v, Factored) else [v])]
    return sum(t.numel() * t.element_size() for t in tensors) // len(gradients[0])


def unit_vectors(values):
    """Vectors whose parts are given per block, as :func:`to_meet` has them, divided by their lengths."""
    squares = sum(v.squared_norm() if isinstance(v, Factored) else v.square().sum(1) for v in values)
    scale = 1 / squares.sqrt().clamp_min(torch.finfo(squares.dtype).tiny)
    return [
        Factored(v.inputs, v.g * scale[:, None, None, None]) if isinstance(v, Factored) else v * scale[:, None]
        for v in values
    ]


def add_pairs(out, queries, rows):
    """``out[q, m] += <Q_q, G_m>`` in place, both Factored."""
    groups, T, T_rows = queries.shape[0], queries.n_positions, rows.n_positions
    step = CHUNK_BYTES // (len(queries) * T * T_rows * out.element_size())
    for some in even_chunks(len(rows), step):
        part = rows[some]
        sides = [(queries.a, part.a), (queries.g, part.g)]
        for group in range(groups):
            inputs, outputs = (steady_product(x[:, group].flatten(0, 1), y[:, group].flatten(0, 1).T) for x, y in sides)
            product = inputs.mul_(outputs)
            out[:, some] += product.view(len(queries), T, len(part), T_rows).sum((1, 3))
    return out


def rowwise_pairs(first, second):
    """(B,) inner products of the gradients of the same places, both Factored."""
    inputs, outputs = first.a @ second.a.transpose(2, 3), first.g @ second.g.transpose(2, 3)
    return (inputs * outputs).sum((1, 2, 3))
