"""Scores for queries: the contract of every attribution method."""

from __future__ import annotations

from abc import abstractmethod
from numbers import Integral

import numpy as np
import torch
from sklearn.base import TransformerMixin
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from ..gradients.algebra import even_chunks
from ..network import require_readable
from ..rows import like_training
from ..utils._argument_checks import check_k, check_order
from ..utils._progress import progress
from ._data_validation import read
from ._net_argument import net_first
from ._network_estimator import NetworkEstimator
from ._terms import merge_top


class BaseAttribution(TransformerMixin, NetworkEstimator):
    """Scores of training rows for queries: the base class of all methods.

    A method gives :meth:`_fit_method`, :meth:`_prepare_queries`, :meth:`_score_batches` and :meth:`_self_batches`;
    ``fit`` is in :class:`NetworkEstimator`, output and streaming are here.

    Attributes
    ----------
    has_unit : bool, default=False
        Set by the class. Whether scores estimate a change of the measurement, in its unit and with its sign
        (``check_attribution_estimator`` then compares them with retraining). Methods without a unit give an order only,
        and score every row given, trained on or not.
    """

    # Rows of the widest matrix handed out at a time when nothing larger is at stake.
    _query_chunk = 4096

    @abstractmethod
    def _prepare_queries(self, rows, index, measure):
        """What :meth:`_score_batches` needs of some query rows."""

    @abstractmethod
    def _score_batches(self, queries, n_queries):
        """Yield (slice of training rows, scores tensor (n_queries, rows))."""

    @abstractmethod
    def _self_batches(self):
        """Yield (slice of training rows, tensor of each row's influence on itself)."""

    def transform(self, X, y=None):
        """Scores of every training row for every query.

        Parameters
        ----------
        X : array-like of shape (n_query, ...)
            The queries.
        y : array-like, optional
            Their targets, where the measurement needs them; classifiers default to the predicted class.

        Returns
        -------
        scores : ndarray of shape (n_query, n_train), float32
            In the unit of the measurement for methods that have one; positive: having the row raised the query's
            measurement. Columns in the order of the rows given to ``fit``.

        Raises
        ------
        ValueError
            If queries hold NaN, have another width than the training rows, or lack targets that the measurement needs.
        """
        with self._alone():
            rows, chunks = self._query_chunks(X, y)
            scores = np.zeros((len(rows), self.n_train_), dtype=np.float32)
            for index in chunks:
                queries = self._prepare_queries(rows, index, self._measure)
                for columns, part in self._score_batches(queries, len(index)):
                    scores[index[0] : index[-1] + 1, columns] = part.to(torch.float32).cpu().numpy()
        return scores

    @net_first
    def fit_transform(self, X, y=None, *, net=None, stage=None):
        """Fit, and score the training rows for each other.

        Parameters
        ----------
        X, y, net, stage : as in :meth:`fit`

        Returns
        -------
        scores : ndarray of shape (n_train, n_train), float32
            ``fit(X, y).transform(X)``; with ``y`` where the measurement cannot do without.
        """
        self.fit(X, y, net=net, stage=stage)
        return self.transform(X, y if self._measure.needs_y else None)

    def top_influences(self, X, y=None, k=10, *, order="supporting"):
        """The strongest training rows of every query, without ever holding the whole matrix.

        Parameters
        ----------
        X, y : as in :meth:`transform`
        k : int, default=10
            Rows per query.
        order : {"supporting", "opposing"}, default="supporting"
            Largest scores first, or smallest (most negative) first.

        Returns
        -------
        top : Bunch
            ``indices`` (n_query, k) of int64, positions in the training rows, and ``scores`` (n_query, k) of float32.

        Raises
        ------
        ValueError
            If ``k`` is not between 1 and ``n_train_``, or ``order`` is unknown.
        TypeError
            If ``k`` is passed by position.
        """
        if isinstance(y, Integral):
            raise TypeError(f"the second argument of top_influences is y, the queries' targets; pass k={y} by name")
        with self._alone():
            k, largest = check_k(k, self.n_train_), check_order(order)
            rows, chunks = self._query_chunks(X, y)
            indices = np.zeros((len(rows), k), dtype=np.int64)
            scores = np.zeros((len(rows), k), dtype=np.float32)
            for index in chunks:
                queries = self._prepare_queries(rows, index, self._measure)
                best = at = None
                for columns, part in self._score_batches(queries, len(index)):
                    here = torch.arange(columns.start, columns.stop, device=part.device)[None]
                    if best is None:
                        best, at = part[:, :0], here[:, :0].expand(len(index), 0)
                    best, at = merge_top(best, at, part, here, k, largest=largest)
                where = slice(index[0], index[-1] + 1)
                scores[where], indices[where] = best.to(torch.float32).cpu().numpy(), at.cpu().numpy()
        return Bunch(indices=indices, scores=scores)

    def self_influence(self):
        """How much of its own fit each training row owes to its presence.

        Returns
        -------
        scores : ndarray of shape (n_train,), float32
            The score of every row for itself with the measurement ``"neg_loss"``. Large: memorised, often mislabelled.
        """
        with self._alone():
            scores = np.zeros(self.n_train_, dtype=np.float32)
            for columns, part in self._self_batches():
                scores[columns] = part.to(torch.float32).cpu().numpy()
        return scores

    def _query_chunks(self, X, y):
        X, y = read(self, self.net_, X, y, reset=False)
        rows = self._network.prepare(*like_training(X, y, self._form, self._y_shape))
        if self._measure.needs_y and not rows.has_y:
            raise ValueError(
                f"measurement={self._measure.name!r} compares the prediction with a target: pass y of the queries, "
                "transform(X, y)"
            )
        require_readable(self._network, rows.batch(slice(0, 1))[0], self._form)
        size = max(1, min(self._query_chunk, self._queries_at_once()))
        chunks = [np.arange(chunk.start, chunk.stop) for chunk in even_chunks(len(rows), size)]
        return rows, progress(chunks, verbose=self.verbose > 0 and len(chunks) > 1, desc="queries")

    def _queries_at_once(self):
        return self._query_chunk

    def get_feature_names_out(self, input_features=None):
        """Names of the columns of :meth:`transform`: ``row0``, ``row1``, ...

        Parameters
        ----------
        input_features : ignored
            Present for the convention.

        Returns
        -------
        names : ndarray of str objects, shape (n_train,)
        """
        check_is_fitted(self)
        return np.asarray([f"row{i}" for i in range(self.n_train_)], dtype=object)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # always float32
        return tags
