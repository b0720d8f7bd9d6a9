"""Scores as sums of terms: which query vectors meet the training gradients at which checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..gradients.algebra import add_inner, rowwise_inner, weighted_sum
from ._row_gradients import State


@dataclass
class Term:
    """One summand ``sum_c w_c <values_q, grad l_m(theta_c)>`` of a score.

    Read more in the :ref:`User Guide <add_method>`.

    Parameters
    ----------
    checkpoints : list of State
        Where the training gradients are taken.
    weights : sequence of float
        Of the checkpoints.
    values : list of tensor (n_query, size), Factored or LowRank, one per block
        The queries' side, every factor of the method's formula included.
    bases : list of Basis or None
        The coordinates of ``values``, per block, into which the training gradients are brought; None for parameters'.
    credited : ndarray of bool or float (n_train,) or None
        The rows this term gives a score, or how much of it; None for all.
    cosine : bool, default=False
        Whether each row's gradient is divided by its norm.
    mixture : tensor (n_query, n_values), float64, optional
        Queries as sums of ``values``, which are then other vectors.
    """

    checkpoints: list[State]
    weights: np.ndarray
    values: list[Any]
    bases: list[Any] | None = None
    credited: np.ndarray | None = None
    cosine: bool = False
    mixture: torch.Tensor | None = None


def term_scores(term, gradients, rowwise=False):
    """Scores of a batch for one term: (n_query, B), or (B,) where each row is its own query.

    Parameters
    ----------
    gradients : list over checkpoints of lists over blocks of gradients of the batch's rows
    """
    if rowwise and term.mixture is not None:
        return (
            (term_scores(replace(term, mixture=None), gradients) * term.mixture.T)
            .sum(0)
            .to(gradients[0][0].tensors()[-1].dtype)
        )
    first = gradients[0]
    rows = len(first[0])
    like = first[0].tensors()[-1]
    out = like.new_zeros((rows,) if rowwise else (len(term.values[0]), rows))
    norms = like.new_zeros(rows)
    for i, values in enumerate(term.values):
        gradient = weighted_sum([g[i] for g in gradients], [float(w) for w in term.weights])
        if term.cosine:
            norms += gradient.squared_norm()
        basis = None if term.bases is None else term.bases[i]
        if basis is not None and not basis.trivial:
            gradient = gradient.rotate_factors(basis.left, basis.right)
        out = out.add_(rowwise_inner(values, gradient)) if rowwise else add_inner(out, values, gradient)
    if term.cosine:
        out /= norms.sqrt().clamp_min(torch.finfo(out.dtype).tiny)
    return out if term.mixture is None else (term.mixture @ out.to(term.mixture.dtype)).to(out.dtype)
