"""Per-row gradients as few numbers: within a tolerance, as few outer products as every row needs, in half precision.

A row's matrix is stored as outer products, ``G_n ~ sum_j u_nj w_nj^T``, or as it is where that is fewer bytes; an
embedding's as the lines that the row looked up. What comes back is a gradient of the algebra like any other.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ._dense import Dense
from ._dyads import Dyads, dyads_of
from ._factored import Factored
from ._indexed import Indexed
from ._products import CHUNK_BYTES, even_chunks
from ._row_gradient import RowGradient

# What rounding both sides of an outer product to half precision leaves of it, at most, relative to its norm; of
# components that are orthogonal on both sides, relative to that of their sum.
HALF_ERROR = 1e-3
# Tolerances from which half precision leaves enough to be spent on the number of outer products.
_HALF_FROM = 2 * HALF_ERROR
# The same of single precision, for gradients of double.
_SINGLE_FROM = 1e-6


def pack(gradient: RowGradient, tol: float | None) -> dict[str, torch.Tensor]:
    """The gradients of B rows in one block as tensors to be stored.

    Parameters
    ----------
    gradient : RowGradient
    tol : float or None
        ``|G~_n - G_n| <= tol |G_n|`` in the Frobenius norm for every row, rounding included. None: exact, of the
        gradient's own data type.

    Returns
    -------
    tensors : dict of str to Tensor
        On the CPU, contiguous; for :func:`unpack`. ``"left"``, ``"right"`` and ``"counts"`` of outer products,
        ``"matrix"``, or ``"tokens"``, ``"lines"`` and ``"counts"``; with ``"scale"`` where they were rounded.
    """
    if isinstance(gradient, Indexed):
        tensors = _packed_lines(gradient, tol)
    else:
        dyads = _dyads(gradient, None if tol is None else tol - HALF_ERROR if tol >= _HALF_FROM else tol)
        groups, out, inp = gradient.shape
        if dyads is not None and dyads.left.shape[1] * (out + inp) < len(gradient) * out * inp:
            tensors = {**_rounded({"left": dyads.left, "right": dyads.right}, tol), "counts": dyads.ranks.int()}
        else:
            tensors = _rounded({"matrix": gradient.matrix()}, tol)
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def unpack(tensors: Mapping[str, torch.Tensor], shape: tuple[int, int, int], like: torch.Tensor) -> RowGradient:
    """The gradients that :func:`pack` was given, within its tolerance.

    Parameters
    ----------
    tensors : mapping of str to Tensor
    shape : (groups, out, in)
        Of a row's matrix.
    like : Tensor
        Of the device and data type wanted.

    Returns
    -------
    gradient : Factored, Dense or Indexed
        Rows of fewer outer products than others have zeros in their place.
    """
    tensors = {name: value.to(like.device) for name, value in tensors.items()}
    values = {name: tensors[name].to(like.dtype) for name in ("matrix", "left", "right", "lines") if name in tensors}
    if "scale" in tensors:
        first = next(iter(values))
        values[first] = values[first] * _spread(tensors["scale"], values[first])
    if "matrix" in values:
        return Dense(values["matrix"])
    counts = tensors["counts"].long()
    if "lines" in values:
        return Indexed(_padded(tensors["tokens"].long(), counts), _padded(values["lines"], counts), shape[2])
    left, right = (_padded(values[side].transpose(0, 1), counts).transpose(1, 2) for side in ("left", "right"))
    return Factored(right, left)


def _own_axes(name):
    """Leading axes with a scale for each place: of a row's matrix, a component, or a line."""
    return 2 if name in ("left", "right") else 1


def _rounded(tensors, tol):
    """The numbers as they are stored; in half precision divided by their largest, the product of which is "scale"."""
    if tol is None or tol < _SINGLE_FROM:
        return tensors
    if tol < _HALF_FROM:
        return {name: value.float() for name, value in tensors.items()}
    result, scale = {}, 1.0
    for name, value in tensors.items():
        largest = value.abs().flatten(_own_axes(name)).amax(-1).float()
        largest = torch.where(largest > 0, largest, 1.0)
        result[name] = (value / _spread(largest, value)).half()
        scale = scale * largest
    return {**result, "scale": scale}


def _spread(scale, values):
    """A scale of the leading axes of some values, to be multiplied by these."""
    return scale.to(values.dtype).view(*scale.shape, *[1] * (values.ndim - scale.ndim))


def _padded(values, counts):
    """(B, largest count, ...) of stretches of the first axis, one a row, filled up with zeros."""
    width = max(1, int(counts.max())) if len(counts) else 1  # products need a place, if of zeros
    if len(values) == len(counts) * width:  # as many everywhere
        return values.view(len(counts), width, *values.shape[1:])
    places = torch.arange(width, device=counts.device) < counts[:, None]
    padded = values.new_zeros((len(counts), width, *values.shape[1:]))
    padded[places] = values
    return padded


def _packed_lines(gradient, tol):
    """The lines of a table that every row looked up, each once, and those that are zero not at all."""
    merged = gradient.merged()
    used = merged.g.abs().amax(2) > 0
    tokens, lines = merged.tokens[used], merged.g[used]
    return {**_rounded({"lines": lines}, tol), "tokens": tokens.int(), "counts": used.sum(1).int()}


def _dyads(gradient, tol):
    """Outer products that every row's matrix is the sum of, within the tolerance; None where they are of no use."""
    groups, out, inp = gradient.shape
    if min(out, inp) == 1 or (tol is None and not isinstance(gradient, Factored)):
        return None
    parts = list(_dyads_of_pieces(gradient, tol))
    if not parts:
        return None
    left, right = (torch.cat([getattr(part, side) for part in parts], dim=1) for side in ("left", "right"))
    return Dyads(torch.cat([part.ranks for part in parts]), left, right)


def _dyads_of_pieces(gradient, tol):
    groups, out, inp = gradient.shape
    positions = gradient.n_positions
    if not isinstance(gradient, Factored) or (tol is not None and positions > min(out, inp)):
        for _, matrices in gradient.matrix_chunks():
            yield dyads_of(matrices, tol, min(out, inp))
        return
    if positions * (out + inp) >= out * inp and tol is None:
        return  # more numbers than the matrix has
    step = CHUNK_BYTES // (groups * positions * (out + inp) * gradient.g.element_size())
    for rows in even_chunks(len(gradient), step):
        part = gradient[rows]
        if positions == 1 or tol is None:
            ranks = torch.full((len(part),), positions)
            yield Dyads(ranks, *(x.transpose(0, 1).flatten(1, 2) for x in (part.g, part.a)))
        else:
            yield _dyads_of_factors(part.g, part.a, tol)


def _dyads_of_factors(g, a, tol):
    """Those of ``g^T a`` (n, groups, T, out or in): of the small matrix that is left between orthonormal factors."""
    (left, g_core), (right, a_core) = (torch.linalg.qr(x.mT) for x in (g, a))  # (n, groups, out or in, T)
    core = dyads_of(g_core @ a_core.mT, tol, g.shape[2])
    counts = core.ranks.to(g.device)
    places = torch.arange(max(1, int(counts.max())), device=g.device) < counts[:, None]
    sides = []
    for basis, side in ((left, core.left), (right, core.right)):
        found = _padded(side.transpose(0, 1), counts).transpose(1, 2) @ basis.mT  # (n, groups, width, out or in)
        sides.append(found.transpose(1, 2)[places].transpose(0, 1))
    return Dyads(core.ranks, *sides)
