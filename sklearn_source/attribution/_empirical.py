"""Influence measured by retraining (Feldman & Zhang 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from ..base import BaseAttribution, QueryBatches, net_first
from ..gradients.algebra import even_chunks
from ..metrics import check_truth
from ..network import split_pipeline
from ..retraining import Retraining
from ..rows import TruthQueries, count_rows, exact_row_hashes, match_truth_rows, row_hashes
from ..utils._compat import validate_data
from ..utils._config import bytes_for
from ..utils._digest import digest
from ..utils._warnings import warn


class EmpiricalInfluence(BaseAttribution):
    """Mean measurement of networks retrained with a row, minus mean of those retrained without it.

    A baseline that assumes nothing, and says how sure it is. It has no network to look into, so it can score those
    queries only that the truth was measured on.

    Read more in the :ref:`User Guide <empirical_influence>`.

    Parameters
    ----------
    truth : Retraining
        From :func:`~sklearn_source.retraining.retrain_on_subsets`. To be judged by another truth than this one: by its
        own, any estimate would look too good.
    X_query : array-like of shape (n_query, ...), optional
        The queries that the truth was measured on, all of them and in that order. With them ``transform`` recognises
        queries, in any number and order. None: ``truth.X_query``, where it has them; else ``transform`` takes all
        queries of the truth, trusting their order.

    Attributes
    ----------
    n_with_ : ndarray of int of shape (n_train,)
        Subsets with each row.
    n_without_ : ndarray of int of shape (n_train,)
        Subsets without it.
    row_hashes_ : ndarray of uint64, shape (n_train,), or None
        Fingerprints of the training rows in the order of :meth:`fit`; None without ``y``, and where rows of their kind
        have none.
    n_train_ : int
        Number of training rows, the columns of :meth:`transform`.
    n_features_in_ : int
        Columns of X, where X is a matrix.
    feature_names_in_ : ndarray of str
        Columns' names, where X is a data frame.

    Notes
    -----
    The unit is that of the measurement, for networks trained on as many rows as the subsets hold: with half of the
    rows, one row counts for about twice as much. Subsets of one size give a row at the cost of another, so that
    scores of a query sum to about 0: of additive effects the mean over all rows is missing. Neither matters to the
    order of rows, nor to the linear datamodeling score.

    :meth:`score_error` is large where there are few subsets: with 100 halves, each score is a difference of two
    means of 50 networks, whose other rows differ too. Cost: the retraining; then ``n_subsets * n_query * n_train``
    multiplications.

    References
    ----------
    .. [1] V. Feldman, C. Zhang, "What Neural Networks Memorize and Why: Discovering the Long Tail via Influence
       Estimation", NeurIPS 2020, equations 1 and 2 with subsets in the place of single rows left out.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.utils import Bunch
    >>> from sklearn_source import EmpiricalInfluence
    >>> truth = Bunch(masks=np.array([[1, 0], [0, 1], [1, 0], [0, 1]], dtype=bool),
    ...               outputs=np.array([3.0, 1.0, 5.0, 2.0]).reshape(4, 1, 1))
    >>> est = EmpiricalInfluence(truth).fit(np.zeros((2, 1)))
    >>> est.transform(np.zeros((1, 1))).tolist()
    [[2.5, -2.5]]
    """

    def __init__(self, truth: Retraining | Bunch | None = None, *, X_query: Any = None):
        self.truth = truth
        self.X_query = X_query

    @net_first
    def fit(self, X: Any, y: Any = None, *, net: Any = None, stage: Any = None) -> EmpiricalInfluence:
        """Count the networks with and without each row.

        Parameters
        ----------
        X : array-like of shape (n_train, ...)
            The training rows of the retraining; in its order, unless the truth knows them (``row_hashes``) and ``y`` is
            given: then in any.
        y : array-like of shape (n_train,) or (n_train, n_outputs), optional
            Their targets, by which rows are recognised; no score depends on them.
        net : skorch.NeuralNet or Pipeline, optional
            ``fit(net, X, y)`` is the same call. Of a truth of a pipeline rows are recognised by what its fitted steps
            make of them; else it is ignored, and present so that methods can be exchanged.
        stage : ignored
            Present for the same reason.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If the truth is missing or of other rows.

        Warns
        -----
        UserWarning
            If rows are in all subsets or in none: nothing is known of them, and their scores are 0.
        """
        if self.truth is None:
            raise ValueError("no truth: pass the result of retrain_on_subsets to the constructor")
        masks, outputs = check_truth(self.truth)
        n_rows = count_rows(X)
        if n_rows != masks.shape[1]:
            raise ValueError(
                f"expected the {masks.shape[1]} training rows of the retraining, in its order, got {n_rows}"
            )
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)
        if getattr(X, "ndim", 0) == 2:
            validate_data(self, X, skip_check_array=True, reset=True)
        self.row_hashes_ = None if y is None else row_hashes(split_pipeline(net)[0].transform(X), y)
        places = match_truth_rows(self.truth, self.row_hashes_)
        masks = masks if places is None else masks[:, places]
        X_query = getattr(self.truth, "X_query", None) if self.X_query is None else self.X_query
        _require_alike(X, X_query)
        self._queries = TruthQueries(X_query, outputs.shape[2])
        self._train_hashes = row_hashes(X), exact_row_hashes(X)
        self.n_train_ = n_rows
        self.n_with_, self.n_without_ = masks.sum(axis=0), (~masks).sum(axis=0)
        unknown = int(((self.n_with_ == 0) | (self.n_without_ == 0)).sum())
        if unknown:
            warn(
                f"{unknown} of {n_rows} rows are in all subsets or in none: nothing is known of them, and their scores "
                "are 0",
            )
        self._masks, self._means = masks, outputs.mean(axis=1)
        return self

    def transform(self, X: Any, y: Any = None, *, out: Any = None) -> NDArray[np.float32]:
        """Scores of every training row for queries of the truth.

        Parameters
        ----------
        X : array-like of shape (n_query, ...)
            Queries that the truth was measured on; see ``X_query``.
        y : ignored
            The truth was measured with targets of its own.
        out : path-like or array of shape (n_query, n_train), optional
            Where scores go that memory does not hold, see :ref:`out_of_core`.

        Returns
        -------
        scores : ndarray of shape (n_query, n_train), float32
            In the unit of the measurement; positive: networks with the row have the higher measurement. Of a path a
            memmap, read-only; of an array that array.

        Raises
        ------
        ValueError
            If a query is none of the truth's, or ``out`` cannot hold the scores.
        FileExistsError
            If the file ``out`` holds anything but these scores.
        """
        return super().transform(X, out=out)

    def score_error(self, X: Any, y: Any = None) -> NDArray[np.float32]:
        """How uncertain each score is.

        Parameters
        ----------
        X : array-like of shape (n_query, ...)
            Queries that the truth was measured on; see ``X_query``.
        y : ignored
            Present for the convention.

        Returns
        -------
        errors : ndarray of shape (n_query, n_train), float32
            Of the difference of means over the random subsets, from the spread between subsets, which holds the chance
            of initialisation and batch order and that of the other rows; scores of one query share networks, so
            that their errors are correlated. Infinite for rows that fewer than two subsets hold or lack.
        """
        return self._estimate(self._positions(X), errors=True)[1].astype(np.float32)

    def self_influence(self) -> NDArray[np.float32]:
        """What each training row's presence does to itself: memorization, in the words of Feldman and Zhang.

        Returns
        -------
        scores : ndarray of shape (n_train,), float32
            In the unit of the truth's measurement.

        Raises
        ------
        ValueError
            If the training rows are not among the queries of the truth.
        """
        return super().self_influence()

    def _query_batches(self, X, y):
        positions = self._positions(X)
        chunks = even_chunks(len(positions), bytes_for("scores") // (8 * self.n_train_))
        return len(positions), QueryBatches(chunks, positions.__getitem__, lambda: digest(positions))

    def _fitted_parts(self):
        parts = {name: part for name, part in super()._fitted_parts().items() if name not in ("truth", "X_query")}
        return {**parts, "truth": [self._masks, self._means]}

    def _score_batches(self, queries, n_queries):
        yield slice(0, self.n_train_), self._estimate(queries)[0]

    def _self_batches(self):
        if self._queries.hashes is None or self._train_hashes[0] is None:
            raise ValueError("self_influence needs the training rows among the queries: pass X_query")
        positions = self._queries.match(*self._train_hashes)
        for start in range(0, self.n_train_, 512):
            part = slice(start, min(start + 512, self.n_train_))
            yield part, np.diagonal(self._estimate(positions[part])[0][:, part])

    def _positions(self, X):
        """Where the truth has these queries."""
        check_is_fitted(self)
        return self._queries.positions(X)

    def _estimate(self, positions, errors=False):
        """Scores (n_query, n_train) of some queries of the truth, and their standard errors if asked for."""
        means = self._means[:, positions]
        means = means - means.mean(axis=0)  # for digits: only differences count
        members = self._masks.astype(np.float64)
        sums = means.T @ members
        with_, without = self.n_with_, self.n_without_
        known = (with_ > 0) & (without > 0)
        inside, outside = sums / np.maximum(with_, 1), -sums / np.maximum(without, 1)
        scores = np.where(known, inside - outside, 0.0)
        if not errors:
            return scores, None
        squares = (means * means).T @ members
        rest = (means * means).sum(axis=0)[:, None] - squares
        variance = sum(
            (total - n * mean**2).clip(min=0) / (np.maximum(n - 1, 1) * np.maximum(n, 1))
            for total, n, mean in ((squares, with_, inside), (rest, without, outside))
        )
        return scores, np.where((with_ > 1) & (without > 1), np.sqrt(variance), np.inf)


def _require_alike(X, X_query):
    """Refuse queries of another form than the training rows, which no network reads both of."""
    if not isinstance(X, np.ndarray) or X_query is None:
        return
    shape = None if isinstance(X_query, type) else getattr(X_query, "shape", None)
    is_table = X.ndim == 2 and shape is not None and len(shape) == 2
    if isinstance(X_query, Mapping) or is_table and shape[1] != X.shape[1]:
        got = f"a {type(X_query).__name__}" if shape is None else f"shape {tuple(shape)}"
        raise ValueError(f"expected X_query as rows like those of X, shape {X.shape}, got {got}")
    if isinstance(X_query, np.ndarray) and X_query.ndim != X.ndim and X_query[0].size != X[0].size:
        raise ValueError(f"expected X_query as rows like those of X, shape {X.shape}, got shape {X_query.shape}")
