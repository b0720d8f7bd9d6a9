"""Methods whose scores are inner products of query vectors with per-row training gradients."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from numbers import Real

import numpy as np
import torch

from ..gradients.algebra import in_bfloat16, warn_of_emulation
from ..loss import resolve_measurement
from ..rows import rows_of_stages
from ..utils._compat import WORKERS, Interval, StrOptions, validate_parameters
from ..utils._config import bytes_for
from ..utils._progress import progress
from ._loss_penalty import check_penalty
from ._network_attribution import NetworkAttribution
from ._predicted_changes import PredictsChanges
from ._queries import Queries
from ._row_gradients import BatchGradients, RowGradients
from ._shared_rows import spread_scores, spread_self_influence
from ._storing import StoresGradients
from ._terms import term_scores
from ._trainable import mark_trained


class GradientAttribution(PredictsChanges, StoresGradients, NetworkAttribution):
    """Base of the methods built on per-row gradients.

    A method gives :meth:`_terms`: which query vectors meet the training gradients at which checkpoints, and
    :meth:`_fit_gradients`, which learns what that takes. Everything else, the walk over the training rows and queries,
    is here. Gradients come from ``self._gradients``, a :class:`RowGradients`.

    Read more in the :ref:`User Guide <add_method>`.
    """

    _parameter_constraints = {
        **NetworkAttribution._parameter_constraints,
        "layers": [None, str, list, tuple],
        "tol": [None, Interval(Real, 0, 1, closed="neither")],
        "precision": [None, StrOptions({"bf16"})],
        "n_jobs": [*WORKERS],
    }

    @abstractmethod
    def _fit_gradients(self):
        """Learn what :meth:`_terms` needs."""

    @abstractmethod
    def _terms(self, queries):
        """The list of :class:`Term` for a chunk of :class:`Queries`."""

    def _treatment(self):
        """What the optimizer did with each parameter: dict of name to hashable, or None."""
        return None

    def _bytes_per_query(self):
        """Bytes that :meth:`_terms` keeps per query."""
        return self._gradients.n_parameters * self._network.dtype.itemsize

    def _fit_method(self):
        network, self._stored = self._network, None
        if self._needs_trajectory:
            mark_trained(network.module, self.trajectory_)
        index = rows_of_stages(self._credited)
        check_penalty(network, self._rows, index, getattr(self.net_, "optimizer_", None))
        self._gradients = RowGradients(
            network, self._rows, layers=self.layers, treatment=self._treatment(), batch_size=self.batch_size
        )
        self._fit_gradients()

    def _fitted_parts(self):
        parts = super()._fitted_parts()
        return parts if self._stored is None else {**parts, "store_gradients": self._stored.tol}

    def _queries_at_once(self):
        return int(bytes_for("query_vectors") // max(self._bytes_per_query(), 1))

    def _credit_of(self, index, weights=None):
        """A :class:`Term`'s ``credited`` for the rows ``index``: None where these are all, and weigh the same."""
        credited = np.zeros(self.n_train_, dtype=bool if weights is None else np.float64)
        credited[index] = True if weights is None else weights
        return None if weights is None and credited.all() else credited

    def _prepare_queries(self, rows, index, measure):
        queries = self._queries(rows, index, measure)
        if self._stored is not None:
            self._stored.loosen(queries)
        terms = self._terms(queries)
        if getattr(self, "precision", None) is None:
            return terms
        validate_parameters(self)  # it may have been set since fit
        warn_of_emulation(self._network.device)
        return [  # sums of many vectors would add up what rounding does to each
            term if term.mixture is not None else replace(term, values=[in_bfloat16(values) for values in term.values])
            for term in terms
        ]

    def _queries(self, rows, index, measure):
        """The queries that meet all training rows, within ``tol`` as it is now."""
        tol = getattr(self, "tol", None)
        if tol is not None:  # it may have been set since fit
            validate_parameters(self)
        return Queries(self._gradients, rows, index, measure, self.n_train_, tol)

    def _score_batches(self, queries, n_queries, training_rows=None):
        if training_rows is None and self._stored is not None:
            yield from self._stored.score_batches(self, queries, n_queries)
            return
        rows, size = training_rows or self._rows, self._gradients.batch_size
        with self._gradients.engine.attached():
            for start in progress(range(0, self.n_train_, size), verbose=self.verbose, desc="training rows"):
                columns = slice(start, min(start + size, self.n_train_))
                yield columns, self._batch_scores(queries, rows, columns, n_queries)

    def _spread_batches(self, queries, n_queries, *training_rows):
        found = spread_scores(self, queries, *(training_rows or [self._rows]), n_queries)
        return self._score_batches(queries, n_queries, *training_rows) if found is None else found

    def _batch_scores(self, terms, rows, columns, n_queries):
        """Sum of all terms for one batch of training rows: (n_queries, rows)."""
        index = np.arange(columns.start, columns.stop)
        total = torch.zeros((n_queries, len(index)), dtype=self._network.dtype, device=self._network.device)
        used = np.zeros(len(index), dtype=bool)
        for term in terms:
            used |= True if term.credited is None else term.credited[index] > 0
        if not used.any():
            return total
        index = index[used]
        training = BatchGradients(self._gradients, rows, index)
        for number, term in enumerate(terms):
            part = self._credited_scores(term, training, index)
            if used.all():
                total += part
            else:
                total[:, torch.as_tensor(used)] += part
            training.keep_only(terms[number + 1].checkpoints if number + 1 < len(terms) else [])
        return total

    def _credited_scores(self, term, training, index, rowwise=False):
        """:func:`term_scores` for the training rows ``index``, zero for those the term does not credit."""
        gradients = [training.at(state) for state in term.checkpoints]
        part = term_scores(term, gradients, rowwise)
        self._require_finite(part, term, gradients)
        return self._times_credit(part, term, index)

    def _times_credit(self, scores, term, index):
        """Scores (..., rows) of the training rows ``index``, times how much the term credits each."""
        if term.credited is None:
            return scores
        return scores * torch.as_tensor(term.credited[index], device=scores.device, dtype=scores.dtype)

    def _self_batches(self):
        size = max(1, min(self._gradients.batch_size, self._queries_at_once()))
        found = spread_self_influence(self, size)
        if found is not None:
            yield from found
            return
        for start in progress(range(0, self.n_train_, size), verbose=self.verbose, desc="self-influence"):
            columns = slice(start, min(start + size, self.n_train_))
            yield columns, self._self_scores(columns)

    def _self_scores(self, columns):
        """Influence of each of the rows ``columns`` on itself: (rows,)."""
        measure = resolve_measurement("neg_loss", self._network)
        queries = self._rows.with_draws(self._measured_draws(measure))
        index = np.arange(columns.start, columns.stop)
        terms = self._terms(Queries(self._gradients, queries, index, measure, n_met=len(index)))
        total = torch.zeros(len(index), dtype=self._network.dtype, device=self._network.device)
        training = BatchGradients(self._gradients, self._rows, index)
        with self._gradients.engine.attached():
            for term in terms:
                total += self._credited_scores(term, training, index, rowwise=True)
        return total

    def _require_finite(self, scores, term, gradients):
        """Name the layer and checkpoint at which scores stopped being numbers, if they did."""
        if bool(torch.isfinite(scores).all()):
            return
        for state, blocks in zip(term.checkpoints, gradients):
            for block, gradient in zip(self._gradients.blocks, blocks):
                if not bool(torch.isfinite(gradient.squared_norm()).all()):
                    where = "the trained weights" if state.step < 0 else f"the checkpoint of step {state.step}"
                    raise ValueError(
                        f"non-finite gradients of training rows in layer {block.name!r} at {where}: look for rows "
                        "whose loss overflows there, or attribute a shorter trajectory"
                    )
        raise ValueError(
            "scores are not finite although all training gradients are: the queries' gradients overflow. Check the "
            "queries for extreme values"
        )
