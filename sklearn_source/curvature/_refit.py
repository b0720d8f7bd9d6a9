"""The Gauss-Newton solution for other weights of the rows: what rows of a group do together."""

from __future__ import annotations

import numpy as np
import torch

from ..utils._locks import cached_property
from ._dual import gram, on_columns
from ._fisher_sample import MAX_ROOT_ROWS, FisherSample, columns_that_fit, draws_that_fill
from ._sketch_bias import SketchBias
from ._weighted_gram import WeightedGram

_COLUMNS = 4096  # where the curvature does not say how many
# What their gradients may take. No share of the memory budget: predictions would depend on it by more than rounding.
_BYTES = 2**30
# Mean leverage of the columns that stand for others, beyond which they say next to nothing of H.
_TOO_MUCH = 0.95


def refit_columns(curvature):
    """How many Fisher columns, about, a refit with this curvature takes: its ``max_rows``."""
    if curvature.max_rows == "auto":
        return _COLUMNS
    return MAX_ROOT_ROWS if curvature.max_rows is None else curvature.max_rows


def refit_draws(curvature, n_rows):
    """How often targets are drawn per row, where they are: as many as fill the columns."""
    return max(curvature.n_samples, draws_that_fill(refit_columns(curvature), n_rows))


class GaussNewtonRefit:
    """``u^T (H_w + D)^-1 v`` where ``H_w = (1/N) sum_m w_m H_m`` for any weights w of the rows.

    With ``R`` Fisher columns of the rows, ``H = R^T R``, and ``K = R D^-1 R^T``,

        u^T (H_w + D)^-1 v = u^T D^-1 v - (R D^-1 u)^T (W^-1 + K)^-1 (R D^-1 v)

    (Woodbury), rows of weight zero left away: all layers are coupled, and each removed row takes along the curvature
    that it held.

    Columns that are a sample weigh more than they are, so that solutions are right on average: :class:`SketchBias`.

    Parameters
    ----------
    stream : FisherStream
        Of one checkpoint, in no metric.
    size : int
        Fisher columns, about, that stand for all of them; fewer where they would take more than a gigabyte.
    scale : list of (float or tensor (groups, out, in)), one per block
        ``D^-1``: nonnegative.
    """

    def __init__(self, stream, size, scale):
        self._scale = scale
        sample = FisherSample(stream, columns_that_fit(stream, size, _BYTES))
        self._by_chance = sample.by_chance
        batches = list(sample.batches())
        self._columns = [[column for (column,) in batch] for batch, _ in batches]
        self._rows = np.concatenate([rows for _, rows in batches]) if batches else np.zeros(0, dtype=int)
        self._bias = SketchBias(WeightedGram(gram(self._columns, scale)), self._by_chance)

    @property
    def has_enough_columns(self):
        """Whether the columns are many enough to say anything."""
        return self._bias.leverage() <= _TOO_MUCH

    def push(self, vectors):
        """``R D^-1 v`` of vectors (n, groups, out, in), one tensor per block: (n, n_columns) in float64."""
        return on_columns(self._columns, [v * s for v, s in zip(vectors, self._scale)])

    def inner(self, first, second):
        """``u^T D^-1 v`` of two sets of vectors: (n_first, n_second) in float64."""
        return sum((u * s).flatten(1).double() @ v.flatten(1).double().T for u, v, s in zip(first, second, self._scale))

    def solutions(self, on_columns, weights):
        """``(H_w + D)^-1 v_g = D^-1 (a_g v_g - R^T y_g)`` for each g with weights of its own.

        Parameters
        ----------
        on_columns : Tensor (n_groups, n_columns)
            Of the vectors v, from :meth:`push`.
        weights : ndarray of shape (n_groups, n_rows)
            Of the stream's rows; 1 as in training.

        Returns
        -------
        lengths : Tensor (n_groups,), float64
            a.
        coefficients : Tensor (n_groups, n_columns), float64
            y.
        """
        solved = [self._solution(own, right) for own, right in zip(weights[:, self._rows], on_columns.cpu())]
        lengths, coefficients = zip(*solved)
        return torch.tensor(lengths, dtype=torch.float64), torch.stack(coefficients)

    def _solution(self, w, right):
        usual, length, root, gram = self._as_in_training
        chance = w[self._by_chance]
        if chance.any() and (w > 0).sum() <= 2 / 3 * len(w):
            a, length = self._bias.weights(chance.sum() ** 2 / (len(chance) * (chance**2).sum()), chance.mean())
            w = np.where(self._by_chance, w * (a / usual), w)
        return length, length * root * gram.solve(w, root * right)

    @cached_property
    def _as_in_training(self):
        """What columns by chance and solutions are multiplied by where few rows are away, and the Gram matrix so."""
        a, length = self._bias.weights()
        root, K = self._bias.scaled(a)
        return a, length, root, self._bias.gram if a == 1.0 else WeightedGram(K)

    def vectors(self, changes, lengths, coefficients):
        """``(H_w + D)^-1 v_g`` of solutions, formed.

        Parameters
        ----------
        changes : list of tensor (n_groups, groups, out, in), one per block
            v.
        lengths, coefficients : see :meth:`solutions`

        Returns
        -------
        vectors : list of tensor (n_groups, groups, out, in), one per block
        """
        result, start = [v * lengths.to(v).reshape(-1, 1, 1, 1) for v in changes], 0
        for columns in self._columns:
            own = coefficients[:, start : start + len(columns[0])]
            result = [v - column.combined(own.to(v)) for v, column in zip(result, columns)]
            start += len(columns[0])
        return [v * s for v, s in zip(result, self._scale)]

    def forms(self, on_queries, queries, changes, lengths, coefficients):
        """``u_q^T (H_w + D)^-1 v_g`` of solutions.

        Parameters
        ----------
        on_queries : Tensor (n_query, n_columns)
            From :meth:`push`.
        queries, changes : list of tensor (n, groups, out, in), one per block
            u and v.
        lengths, coefficients : see :meth:`solutions`

        Returns
        -------
        forms : Tensor (n_query, n_groups), float64
        """
        result = self.inner(queries, changes)
        return result * lengths.to(result) - on_queries @ coefficients.to(result).T
