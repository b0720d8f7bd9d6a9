"""Methods whose scores are inner products of query vectors with per-row training gradients."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..gradients.algebra import in_bfloat16, warn_of_emulation
from ..loss import resolve_measurement
from ..rows import rows_of_stages
from ..utils._compat import WORKERS, Interval, StrOptions, validate_parameters
from ..utils._config import bytes_for
from ..utils._progress import progress
from ._loss_penalty import check_penalty
from ._network_attribution import NetworkAttribution
from ._other_targets import require_losses, with_targets
from ._queries import Queries
from ._reweighting import relabelled, reweighted, row_weights_asked
from ._row_gradients import BatchGradients, RowGradients
from ._shared_rows import spread_scores, spread_self_influence
from ._storing import StoresGradients
from ._terms import term_scores
from ._trainable import mark_trained


class GradientAttribution(StoresGradients, NetworkAttribution):
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
        return [replace(term, values=[in_bfloat16(values) for values in term.values]) for term in terms]

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

    def predict_reweighting(
        self, X: Any, y: Any = None, *, groups: Any = None, weights: Any = None, renormalize: bool = True
    ) -> NDArray[np.float64]:
        """How far measurements go where groups of rows are removed, or rows weigh otherwise, and training is redone.

        Scores are derivatives, and sums of them leave out what rows of a group do together: those that support a query
        support each other, so that removing them together does more than the sum says. Methods with a curvature
        (:class:`~sklearn_source.SourceAttribution`, :class:`~sklearn_source.InfluenceFunctions`) solve for the new
        weights, with the curvature that the rows take along; others sum their scores
        (:func:`~sklearn_source.metrics.first_order_change`).

        Read more in the :ref:`User Guide <removal>`.

        Parameters
        ----------
        X : array-like of shape (n_query, ...)
            The queries.
        y : array-like, optional
            Their targets, where the measurement needs them.
        groups : dict of str to array-like, array-like of shape (n_train,), or list of array-like, optional
            Rows to remove, a group at a time: as :func:`~sklearn_source.inspection.group_influence` takes them.
        weights : array-like of shape (n_groups, n_train) or (n_train,), optional
            In place of groups: what every row weighs, 1 as in training, 0 for a row that is away.
        renormalize : bool, default=True
            Whether the loss is a mean over the rows by their weights, as of a training on the rows left. False: the
            rows left keep their weight 1/N.

        Returns
        -------
        change : ndarray of shape (n_query, n_groups), float64
            The measurement after, minus before, in its unit: negative where it falls. Transposed, it is ``predicted``
            of :func:`~sklearn_source.metrics.group_effect_score`.

        Raises
        ------
        ValueError
            If both or neither of groups and weights are given, or leave no rows to train on.
        """
        with self._exclusive():
            asked = row_weights_asked(groups, weights, self.n_train_, renormalize)
            return self._predicted_changes(X, y, reweighted(self._rows, asked))

    def predict_relabeling(self, X: Any, y: Any = None, *, y_train: Any, groups: Any = None) -> NDArray[np.float64]:
        """How far measurements go where training rows get other targets, and training is redone.

        The loss with the new target comes in for that with the old one. Methods with a curvature solve for that as for
        :meth:`predict_reweighting`; others sum the differences of scores. The curvature is taken not to depend on
        targets, as that of squared errors and cross-entropy does not.

        Read more in the :ref:`User Guide <removal>`.

        Parameters
        ----------
        X : array-like of shape (n_query, ...)
            The queries.
        y : array-like, optional
            Their targets, where the measurement needs them.
        y_train : array-like of shape (n_train,) or (n_train, n_outputs)
            The targets of all training rows as they would be, in the order of ``fit``; those that are as they were
            change nothing.
        groups : dict of str to array-like, array-like of shape (n_train,), or list of array-like, optional
            Rows that change together, a group at a time: as :func:`~sklearn_source.inspection.group_influence` takes
            them. None: one group, of all rows with another target.

        Returns
        -------
        change : ndarray of shape (n_query, n_groups), float64
            The measurement after, minus before, in its unit: negative where it falls.

        Raises
        ------
        ValueError
            If the targets do not fit the rows or the network, or nothing changes in a group.
        TypeError
            If the training rows were a dataset, which has its targets inside.
        """
        with self._exclusive():
            changed = with_targets(self, y_train)
            asked = relabelled(self._rows, changed, groups, self._gradients.batch_size)
            require_losses(self._network, changed)
            return self._predicted_changes(X, y, asked)

    def _predicted_changes(self, X, y, asked):
        n_query, batches = self._in_parts(X, y, self._queries)
        predict = self._changes(asked)
        change = np.zeros((n_query, len(asked.weights)))
        for chunk, queries in batches:
            change[chunk] = predict(queries).cpu().numpy()
        return change

    def _changes(self, asked):
        """A function of :class:`Queries` to their changes (n_query, n_groups) by :class:`ChangedRows`."""

        def first_order(queries):
            terms, total = self._terms(queries), torch.zeros(len(queries), len(asked.weights), dtype=torch.float64)
            for rows, counts in asked.pulls:
                for columns, scores in self._spread_batches(terms, len(queries), rows):
                    total += torch.as_tensor(scores).double().cpu() @ torch.as_tensor(counts[:, columns]).T
            return total

        return first_order

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
