"""Gradient methods that apply functions of a curvature to their query vectors."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch

from ..curvature import (
    CURVATURES,
    Curvature,
    GaussNewtonRefit,
    fit_curvature,
    refit_columns,
    refit_draws,
    resolve_curvature,
)
from ..gradients.algebra import even_chunks
from ..utils._compat import StrOptions, validate_parameters
from ..utils._progress import progress
from ..utils._warnings import warn
from ._damped_step import ProximalLoss, damped_solutions
from ._gradient import GradientAttribution
from ._kept_refits import kept_refit
from ._loss_penalty import penalty_curvature


class CurvatureAttribution(GradientAttribution):
    """Base of the methods with a parameter ``curvature``: a name, or a :class:`~sklearn_source.curvature.Curvature`.

    Read more in the :ref:`User Guide <add_method>`.
    """

    _parameter_constraints = {
        **GradientAttribution._parameter_constraints,
        "curvature": [StrOptions(set(CURVATURES)), Curvature],
    }

    def set_params(self, **params: Any) -> CurvatureAttribution:
        """Set parameters of this estimator and, as ``curvature__basis`` and the like, of its curvature.

        Parameters
        ----------
        **params : dict
            A name as ``curvature`` becomes the object that it stands for where parameters of the object are set.

        Returns
        -------
        self : object
            This estimator.
        """
        if any(name.startswith("curvature__") for name in params):
            given = params["curvature"] if "curvature" in params else self.curvature
            params["curvature"] = resolve_curvature(given)
        return super().set_params(**params)

    def _validate_parts(self):
        validate_parameters(resolve_curvature(self.curvature))

    def _penalty_curvature(self, index, values, weights):
        """What a penalty in the loss adds to the curvature of every parameter, see :func:`penalty_curvature`."""
        return penalty_curvature(self._network, self._rows, index, values, weights)

    def _fit_curvature(self, curvature, states, weights, index, metric=None, row_weights=None):
        """The fitted ``curvature`` of the rows ``index``, averaged over ``states``, in a metric where given.

        ``row_weights`` (len(index),) have mean one; None for alike.
        """
        stream = curvature.stream(
            self._network, self._gradients.engine, self._rows, index, states, weights, keys=self._keys,
            identified=self._identified, seed=self._seed,
            batch_size=self._gradients.rows_at_once,
            progress=lambda iterable, desc: progress(iterable, verbose=self.verbose, desc=desc), metric=metric,
            row_weights=row_weights,
        )  # fmt: skip
        stream.n_jobs = getattr(self, "n_jobs", None)
        return fit_curvature(curvature, stream)

    def _refit(self, state, index, scale, asked, row_weights=None):
        """Changes by the Gauss-Newton step for other weights or targets of the rows ``index``, at one state.

        Parameters
        ----------
        state : State
        index : ndarray of int (n_rows,)
            The rows that were trained on.
        scale : list of (float or tensor (groups, out, in)), one per block
            The inverse of what is added to H, elementwise.
        asked : ChangedRows

        Returns
        -------
        predict : callable or None
            Of :class:`Queries` to (n_query, n_groups). None where columns that can be held are too few for H.
        """
        refit = kept_refit(self, state, lambda: self._new_refit(state, index, scale, row_weights))
        if not refit.has_enough_columns:
            return None
        own, drawn = asked.weights[:, index], 1.0 if row_weights is None else row_weights
        pulls = [(rows, counts[:, index] * drawn / len(index)) for rows, counts in asked.pulls]
        parts = even_chunks(len(own), self._queries_at_once())

        @functools.lru_cache(maxsize=1)  # where the groups fit at once, they are summed and solved once for all queries
        def changes(number):
            some = [(rows, w[parts[number]]) for rows, w in pulls]
            vectors = self._sums_of_gradients(state, index, some)
            if asked.step == "full":
                return vectors, *refit.solutions(refit.push(vectors), own[parts[number]])
            base = np.broadcast_to(drawn / len(index), len(index))
            loss = ProximalLoss(self._gradients, state, index, scale, self._rows, base, some)
            *solution, damping = damped_solutions(refit, loss, vectors, own[parts[number]])
            asked.note(parts[number], damping)
            return vectors, *solution

        def predict(queries):
            encoded = queries.encoded(state, lambda blocks: [gradient.matrix() for gradient in blocks])
            pushed = refit.push(encoded)
            return -torch.cat([refit.forms(pushed, encoded, *changes(i)) for i in range(len(parts))], dim=1)

        return predict

    def _new_refit(self, state, index, scale, row_weights):
        """The :class:`~sklearn_source.curvature.GaussNewtonRefit` at a state, whatever is asked of it."""
        curvature = resolve_curvature(self.curvature)
        stream = curvature.stream(
            self._network, self._gradients.engine, self._rows, index, [state], np.ones(1), keys=self._keys,
            identified=self._identified, seed=self._seed, batch_size=self._gradients.rows_at_once,
            row_weights=row_weights, n_samples=refit_draws(curvature, len(index)),
        )  # fmt: skip
        return GaussNewtonRefit(stream, refit_columns(curvature), scale)

    def _summed_changes(self, asked):
        """What :meth:`_changes` gives where the curvature of all rows cannot be held: sums of scores."""
        warn(
            "the curvature of the training rows has more directions than the "
            f"{refit_columns(resolve_curvature(self.curvature))} Fisher columns, or the draws of targets, that stand "
            "for it: predicted is the sum of scores, which leaves out what rows of a group do together. max_rows= of "
            "the curvature takes more columns, n_samples= draws more, for outputs of many classes or tokens"
        )
        return super()._changes(asked)

    def _sums_of_gradients(self, state, index, pulls):
        """``sum_m w[g, m] grad l_m`` at a state, one tensor (n_groups, groups, out, in) per block.

        ``pulls``: (Rows, weights (n_groups, len(index))) to be summed.
        """
        total, size = None, self._gradients.batch_size
        for rows, weights in pulls:
            used = np.flatnonzero(weights.any(axis=0))
            for start in range(0, len(used), size):
                some = used[start : start + size]
                gradients = self._gradients.of_loss(*rows.batch(index[some]), state)
                parts = [g.combined(torch.as_tensor(weights[:, some]).to(g.tensors()[-1])) for g in gradients]
                total = parts if total is None else [t.add_(part) for t, part in zip(total, parts)]
        if total is None:  # nothing that was trained on changes
            like = {"dtype": self._network.dtype, "device": self._network.device}
            total = [torch.zeros(len(pulls[0][1]), *block.shape, **like) for block in self._gradients.blocks]
        return total

    def _bytes_for_functions(self, fitted):
        """Bytes that functions of fitted curvatures hold per query: those of the largest."""
        n, size = self._gradients.n_parameters, self._network.dtype.itemsize
        return max(curvature.bytes_per_query(n, size) for curvature in fitted)
