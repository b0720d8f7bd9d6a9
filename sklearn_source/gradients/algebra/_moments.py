"""Sums of outer products, less what symmetry and the overlap of a convolution's windows save."""

from __future__ import annotations

from dataclasses import dataclass

from ._products import ALIGNED, TILE


@dataclass(frozen=True)
class Overlap:
    """How a convolution's windows overlap along its first axis.

    Positions are ordered (window, ...), columns (place in the kernel, ...): what window ``h`` has at place ``k + 1`` is
    what window ``h + shift`` has at place ``k``.
    """

    places: int
    windows: int
    shift: int

    @property
    def pays(self):
        """Whether the products left out outweigh those at the border."""
        return self.places > 1 and 4 * self.shift < self.windows


def second_moment(chunks):
    """Sum over chunks, rows and positions of ``x x^T``: every x (b, G, T, d) -> (G, d, d)."""
    moment = None
    for x in chunks:
        moment = _zeros(x, x.shape[3]) if moment is None else moment
        if x.shape[3] == 1:  # a depthwise convolution's outputs: products of one entry each cost their calls
            moment += x.square().sum((0, 2)).unsqueeze(2)
        else:
            _add_upper(moment, _flat(x), x.shape[3])
    return _mirrored(moment)


def overlapping_moment(chunks, overlap):
    """:func:`second_moment` of a convolution's unfolded inputs, one column for a bias allowed at the end.

    The block of places (j + 1, k + 1) is that of (j, k) but for the windows at the border: only the blocks (0, k) are
    products over all positions.
    """
    moment = border = None
    for x in chunks:
        width = x.shape[3]
        block = width // overlap.places
        end = block * overlap.places
        if moment is None:
            moment, border = _zeros(x, width), _zeros(x, end - block)
        flat = _flat(x)
        _add_upper(moment, flat, block)
        grid = x.unflatten(2, (overlap.windows, -1))
        first = _flat(grid[:, :, : overlap.shift].flatten(2, 3))[..., : end - block]
        last = _flat(grid[:, :, -overlap.shift :].flatten(2, 3))[..., block:end]
        border.baddbmm_(last.transpose(1, 2), last).baddbmm_(first.transpose(1, 2), first, alpha=-1)
        if end < width:
            moment[..., block:, end:] += flat[..., block:].transpose(1, 2) @ flat[..., end:]
    for low in range(block, end, block):
        before = slice(low - block, end - block)
        moment[:, low : low + block, low:end] = (
            moment[:, low - block : low, before] + border[:, low - block : low, before]
        )
    return _mirrored(moment)


def weighted_moment(x, gram):
    """``sum_n x_n^T K_n x_n`` for x (n, G, T, d) and K (n, G, T, T): (G, d, d)."""
    if x.shape[2] == 1:
        return second_moment([x * gram.sqrt()])
    left, right = (t.transpose(0, 1).flatten(1, 2) for t in (x, gram @ x))  # (G, n T, d)
    return left.transpose(1, 2) @ right


def moments_by_grams(a, gs, wanted_input, wanted_output):
    """``G^T G = a^T (g g^T) a`` and ``G G^T = g^T (a a^T) g``, for a row's vectors ``a`` (T, in) and ``g`` (T, out).

    Takes ``a`` (n, G, T, in) and several ``g`` (n, G, T, out); gives both sums over rows and ``gs``, None where not
    wanted.
    """
    inputs = outputs = None
    if wanted_input:
        inputs = weighted_moment(a, sum(g @ g.transpose(2, 3) for g in gs))
    if wanted_output:
        gram = a @ a.transpose(2, 3)
        outputs = sum(weighted_moment(g, gram) for g in gs)
    return inputs, outputs


def _flat(x):
    return x.permute(1, 0, 2, 3).reshape(x.shape[1], -1, x.shape[3])  # (G, b*T, d)


def _zeros(x, width):
    """(G, width, width), its lines aligned."""
    return x.new_zeros((x.shape[1], width, width + -width % ALIGNED))[..., :width]


def _add_upper(moment, flat, n_lines):
    """The first lines of ``sum x x^T``, on and right of the diagonal, tile by tile."""
    tiles = max(1, min(8, n_lines // TILE))
    bounds = [n_lines * i // tiles for i in range(tiles + 1)]
    for low, high in zip(bounds, bounds[1:]):
        if len(moment) > 1:  # the many small groups of a depthwise convolution
            moment[:, low:high, low:].baddbmm_(flat[..., low:high].mT, flat[..., low:])
        else:  # at once into what lies in longer lines
            moment[0, low:high, low:].addmm_(flat[0, :, low:high].T, flat[0, :, low:])


def _mirrored(moment):
    """The lower triangle from the upper one."""
    for low in range(0, moment.shape[1], TILE):
        part = slice(low, low + TILE)
        corner = moment[:, part, part].triu()
        moment[:, part, part] = corner + corner.triu(1).transpose(1, 2)
        moment[:, low + TILE :, part] = moment[:, part, low + TILE :].transpose(1, 2)
    return moment
