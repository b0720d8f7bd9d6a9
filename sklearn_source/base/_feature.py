"""Methods whose scores are a form in features of the rows: representations, projected gradients."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch

from ..loss import resolve_measurement
from ..utils._compat import WORKERS
from ..utils._progress import progress
from ._network_attribution import NetworkAttribution
from ._shared_rows import spread_features


class FeatureAttribution(NetworkAttribution):
    """Base of the methods that compare features of a query with features of the training rows.

    A method gives :meth:`_features`, what a row looks like, and, where the score is not their inner product,
    :meth:`_compare`. What else is to be learned from the training rows' features (a kernel to divide by, their norms)
    goes into :meth:`_fit_features`, which may also change them. ``fit`` calls :meth:`_begin_features`,
    :meth:`_training_row_features` for all training rows, ``_feature_batch`` at a time, and :meth:`_fit_features`; a
    query passes :meth:`_query_features` and :meth:`_compare`. The features of the training rows are kept, on the
    network's device: ``n_train`` x width numbers.

    Read more in the :ref:`User Guide <add_method>`.
    """

    _parameter_constraints = {**NetworkAttribution._parameter_constraints, "n_jobs": [*WORKERS]}

    @abstractmethod
    def _features(self, rows, index, measure):
        """Features of some rows.

        Parameters
        ----------
        rows : Rows
            Training rows or queries.
        index : ndarray of int (n,)
            Which of them: at most ``_feature_batch`` at a time.
        measure : Measurement
            What is attributed; representations do not ask.

        Returns
        -------
        features : Tensor (n, width)
        """

    def _training_row_features(self, rows, index):
        """Features of training rows: by default what a query with the same target would have.

        A method whose two sides differ (the training loss on this one, the measurement on the other) gives its own.
        """
        return self._features(rows, index, self._measure)

    def _begin_features(self):
        """Make ready what :meth:`_features` needs, before any row is looked at."""

    def _fit_features(self, features):
        """Learn from the training rows' features (n_train, width); what is returned is kept as theirs."""
        return features

    def _query_features(self, rows, index, measure):
        """What :meth:`_compare` takes as queries: their features, with whatever factor the method gives that side."""
        return self._features(rows, index, measure)

    def _compare(self, queries, training):
        """Scores (n_query, n) of queries' features (n_query, width) and training rows' (n, width)."""
        return queries @ training.T

    def _compare_rows(self, queries, training):
        """Scores (n,) of every row of ``queries`` with the same row of ``training``."""
        return torch.stack([self._compare(q[None], t[None])[0, 0] for q, t in zip(queries, training)])

    @property
    def _feature_batch(self):
        """Rows whose features are computed together; of gradients, ``RowGradients.batch_size`` is what fits."""
        return self.batch_size or 512

    def _fit_method(self):
        self._begin_features()
        self._training_features = self._fit_features(self._features_of_training_rows())

    def _features_of_training_rows(self):
        """(n_train, width)."""
        parts = spread_features(self, self._feature_batch)
        if parts is None:
            return self._in_batches(self._training_row_features, self._rows, np.arange(self.n_train_))
        return torch.cat([part for _, part in parts]).to(self._network.device)

    def _in_batches(self, compute, rows, index, *measure):
        """``compute(rows, some of index, *measure)``, joined."""
        size = self._feature_batch
        starts = progress(range(0, len(index), size), verbose=self.verbose, desc="features")
        joined = None
        for start in starts:
            part = compute(rows, index[start : start + size], *measure)
            if joined is None:  # written in place: parts that are put together at the end are there twice
                joined = part.new_empty(len(index), *part.shape[1:])
            joined[start : start + size] = part
        return joined

    def _prepare_queries(self, rows, index, measure):
        return self._in_batches(self._query_features, rows, index, measure)

    def _score_batches(self, queries, n_queries):
        for start in range(0, self.n_train_, self._feature_batch):
            columns = slice(start, min(start + self._feature_batch, self.n_train_))
            yield columns, self._compare(queries, self._training_features[columns])

    def _self_features(self, columns):
        """The training rows ``columns`` (a slice) as queries for their own ``"neg_loss"``: (rows, width)."""
        measure = resolve_measurement("neg_loss", self._network)
        rows = self._rows.with_draws(self._measured_draws(measure))
        return self._query_features(rows, np.arange(columns.start, columns.stop), measure)

    def _self_batches(self):
        for start in range(0, self.n_train_, self._feature_batch):
            columns = slice(start, min(start + self._feature_batch, self.n_train_))
            yield columns, self._compare_rows(self._self_features(columns), self._training_features[columns])
