"""Products that per-row gradients are made of, and the chunks in which they run.

Chunks are small enough to stay in a last-level cache, and below the size (32 MiB) from which the C library's allocator
asks the system for fresh pages every time: a copy into those runs at a tenth of the rate.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from ._bfloat16 import bfloat16_product

# Bytes of one chunk of gradient matrices: for the cache, not a share of the memory budget.
CHUNK_BYTES = 8 * 2**20
CHUNK_ROWS = 1024
# Rows whose entries are added to buckets together: their buckets stay in the cache.
BUCKETED_ROWS = 256
# Bytes of the inputs laid out at a time.
LAYOUT_BYTES = 8 * 2**20
# Entries of a matrix from which squares are summed one matrix at a time, each read once.
_LARGE = 2**14
# Least width of a tile of a symmetric product: narrower ones lose more rate than the mirror saves.
TILE = 128
# Widths of a product's output are padded to multiples of this: unaligned lines are written at two thirds of the rate.
ALIGNED = 8
# Outputs of a product below which matrix libraries leave threads idle along the sum.
_FEW_OUTPUTS = 10_000
# Multiplications that a product's entry is worth which is written, multiplied by another one and added to a sum.
ENTRY_COST = 64
# Widest matrix whose columns are rotated together with those of the other rows.
_NARROW = 32
# Entries up to which a product on the CPU is taken in float64.
_SMALL = 2**14


def steady_product(a, b):
    """``a @ b`` of matrices; small ones in float64, which costs nothing there.

    Matrix libraries add up the last rows of a product in another order than the others: in float32 a query's scores
    would differ in the last digits with the queries it stands among.
    """
    if a.dtype == torch.float32 and a.device.type == "cpu" and a.numel() + b.numel() <= _SMALL:
        return (a.double() @ b.double()).to(a.dtype)
    return a @ b


def even_chunks(n, size):
    """Slices of ``range(n)`` no longer than ``size`` (at least 1), as equal as can be."""
    count = -(-n // max(1, int(size)))
    bounds = [n * i // count for i in range(count + 1)] if count else [0]
    return [slice(low, high) for low, high in zip(bounds, bounds[1:])]


def slab_plan(n_rows, shape, n_positions, n_queries, itemsize):
    """How many rows by how many of their matrices' lines meet the queries at a time: (rows, lines).

    All queries are read once for every ``rows`` rows, all inputs once for every ``lines`` lines: with the product of
    the two bounded by the buffer, the least traffic is where both are read equally much.
    """
    groups, n_out, n_in = shape
    fit = max(1, CHUNK_BYTES // (groups * n_in * itemsize))  # lines, over all rows
    most = rows = min(n_rows, CHUNK_ROWS)
    if n_positions > 1:  # a single position's input weighs no more than one line
        rows = max(1, min(most, round(math.sqrt(fit * n_queries / n_positions))))
    lines = max(1, fit // rows)
    if groups > 1 or lines >= n_out:  # a group's lines are not one stretch of the queries
        return max(1, min(most, fit // n_out)), n_out
    return rows, lines


def rotate_vectors(x, basis):
    """``x @ basis`` for x (B, G, T, d) and basis (G, d, e), as one matrix product for each group."""
    rows, groups, positions, width = x.shape
    if groups == 1:
        return steady_product(x.reshape(-1, width), basis[0]).view(rows, 1, positions, -1)
    product = torch.bmm(x.transpose(0, 1).reshape(groups, -1, width), basis)
    return product.view(groups, rows, positions, -1).transpose(0, 1)


def rotate_matrices(matrices, left, right):
    """``left^T M right`` for M (n, G, out, in); left (G, out, out) or None, right (G, in, in) or None.

    None stands for the identity. Both orders cost ``n out in (out + in)`` multiplications, so none is chosen here.
    """
    if right is not None:
        matrices = rotate_vectors(matrices, right)
    if left is None:
        return matrices
    if matrices.shape[3] > _NARROW:
        return left.transpose(1, 2) @ matrices
    # Vectors and narrow matrices of all rows at once: one by one each would read the whole basis.
    return rotate_vectors(matrices.transpose(2, 3), left).transpose(2, 3)


def aligned(basis):
    """``basis`` (G, d, d) with zero columns appended, so that what it rotates has aligned lines; None stays None."""
    if basis is None or basis.shape[2] < TILE or basis.shape[2] % ALIGNED == 0:
        return basis
    return F.pad(basis, (0, -basis.shape[2] % ALIGNED))


def add_product(out, queries, matrices):
    """``out += queries @ matrices^T`` in place; long sums of few outputs are cut, so that all threads get a part."""
    if queries.dtype == torch.bfloat16:
        out.add_(bfloat16_product(queries, matrices))
        return
    width = queries.shape[1]
    if out.numel() + queries.numel() + matrices.numel() <= _SMALL:
        out.add_(steady_product(queries, matrices.T))
        return
    parts = next((p for p in (4, 3, 2) if width % p == 0), 1)
    if parts == 1 or out.numel() > _FEW_OUTPUTS or width < parts * 1024:
        out.addmm_(queries, matrices.T)
        return
    left = queries.unflatten(1, (parts, -1)).transpose(0, 1)  # (parts, n_query, width / parts)
    right = matrices.unflatten(1, (parts, -1)).permute(1, 2, 0)
    out.add_(torch.bmm(left, right).sum(0))


def add_squares(total, matrices):
    """``total += sum_n matrices[n]^2``; overwrites ``matrices``."""
    if total.numel() < _LARGE:
        total += matrices.square_().sum(0)
        return
    for matrix in matrices:
        total.addcmul_(matrix, matrix)
