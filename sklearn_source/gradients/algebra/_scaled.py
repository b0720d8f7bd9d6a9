"""Per-row gradients as whole matrices, formed a few rows at a time, in a metric where one is given.

A product with a full matrix leaves no factors, and covariances of whole matrices need them formed: memory stays that of
one chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ._factored import CHUNK_BYTES, Dense, Factored
from ._moments import second_moment


@dataclass(frozen=True)
class Formed:
    """``G_n``, or ``root * G_n`` element by element, for every row n of ``gradient``; ``root`` (groups, out, in)."""

    gradient: Factored | Dense
    root: torch.Tensor | None = None

    def __len__(self):
        return len(self.gradient)

    @property
    def shape(self):
        return self.gradient.shape

    def tensors(self):
        return self.gradient.tensors()

    def __getitem__(self, rows):
        return Formed(self.gradient[rows], self.root)

    def chunks(self):
        """Dense pieces of some rows each."""
        groups, out, inp = self.shape
        element = self.tensors()[-1].element_size()
        step = max(1, CHUNK_BYTES // (groups * out * inp * element))
        for start in range(0, len(self), step):
            yield Dense(self[start : start + step].matrix())

    def matrix(self):
        """(B, groups, out, in)."""
        matrices = self.gradient.matrix()
        return matrices if self.root is None else matrices * self.root

    def rotate(self, left, right):
        return Dense(self.matrix()).rotate(left, right)

    def moments(self, wanted_input, wanted_output):
        """Sums over rows of ``G^T G`` and of ``G G^T``, None where not wanted; the matrices are formed once."""
        sums = [None, None]
        for chunk in self.chunks():
            sums = _added(sums, chunk.moments(wanted_input, wanted_output))
        return sums


def scaled(gradient, root):
    """A gradient of any form in the metric of ``root``; a form that can take the product in keeps its kind."""
    own = getattr(gradient, "scaled", None)
    return own(root) if own else Formed(gradient, root)


def whole_moments(columns, wanted_input, wanted_output):
    """Sums over rows and Fisher columns of ``G^T G`` and of ``G G^T``, None where not wanted.

    Parameters
    ----------
    columns : list of Factored, of Indexed, of Dense or of Formed
        The gradients of the same rows for each column of the Fisher's root; factored ones share their inputs ``a``.
    wanted_input, wanted_output : bool
    """
    first, sums = columns[0], [None, None]
    if isinstance(first, Factored) and _grams_pay(first):
        for rows, part in first.pieces():
            sums = _added(sums, _by_grams(part.a, [column.g[rows] for column in columns], wanted_input, wanted_output))
        return sums
    for column in columns:
        whole = Formed(column) if isinstance(column, Factored) else column
        sums = _added(sums, whole.moments(wanted_input, wanted_output))
    return sums


def _added(sums, parts):
    return [part if total is None else total.add_(part) for total, part in zip(sums, parts)]


def _grams_pay(gradient):
    """Whether the (T, T) Gram matrices of a row's vectors are less work than its matrix and the squares of that."""
    (_, out, inp), T = gradient.shape, gradient.n_positions
    return 2 * T * T * (out + inp) + T * (inp * inp + out * out) < out * inp * (T + (inp + out) / 2)


def _by_grams(a, gs, wanted_input, wanted_output):
    """``G^T G = a^T (g g^T) a`` and ``G G^T = g^T (a a^T) g``, for a row's vectors ``a`` (T, in) and ``g`` (T, out)."""
    inputs = outputs = None
    if wanted_input:
        inputs = _weighted_moment(a, sum(g @ g.transpose(2, 3) for g in gs))
    if wanted_output:
        gram = a @ a.transpose(2, 3)
        outputs = sum(_weighted_moment(g, gram) for g in gs)
    return inputs, outputs


def _weighted_moment(x, gram):
    """``sum_n x_n^T K_n x_n`` for x (n, G, T, d) and K (n, G, T, T)."""
    if x.shape[2] == 1:
        return second_moment([x * gram.sqrt()])
    left, right = (t.transpose(0, 1).flatten(1, 2) for t in (x, gram @ x))  # (G, n T, d)
    return left.transpose(1, 2) @ right
