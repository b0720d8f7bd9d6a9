"""The contract of every attribution method: scores for queries, streamed, with no word of where they come from."""

from __future__ import annotations

import contextlib
from abc import ABCMeta, abstractmethod
from collections.abc import Iterator
from importlib.metadata import version
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from ..utils._argument_checks import check_k, check_order
from ..utils._compat import output_container
from ._net_argument import net_first
from ._query_batches import QueryBatches
from ._score_array import score_output
from ._score_file import N_FIRST, identity_of
from ._top_rows import TopRows

# Parameters that no file of scores is known by: what changes rounding at most, what the fitted state tells better, and
# what is drawn, of which the scores themselves tell.
_NOT_IN_A_FILE = {"batch_size", "cache", "cache_size", "estimator", "memory", "members", "n_jobs", "net", "nets"}
_NOT_IN_A_FILE |= {"random_state", "trajectory", "verbose"}


class BaseAttribution(TransformerMixin, BaseEstimator, metaclass=ABCMeta):
    """Scores of training rows for queries: the base class of all methods.

    ``transform``, ``top_influences``, ``self_influence`` and the names of the columns are here, made of what a method
    gives: :meth:`fit`, which sets ``n_train_``, and the three generators :meth:`_query_batches`, :meth:`_score_batches`
    and :meth:`_self_batches`. Most methods look into a network and begin further down:
    :class:`NetworkAttribution`, :class:`GradientAttribution` or :class:`FeatureAttribution`.

    Read more in the :ref:`User Guide <add_method>`.

    Attributes
    ----------
    has_unit : bool, default=False
        Set by the class. Whether scores estimate a change of the measurement, in its unit and with its sign
        (``check_attribution_estimator`` then compares them with retraining). Methods without a unit give an order only,
        and score every row given, trained on or not.
    fit_depends_on_measurement : bool, default=False
        Set by the class. Whether :meth:`fit` looks at what is measured, so that :meth:`self_influence` of a method
        fitted for another measurement than ``"neg_loss"`` need not be the diagonal of ``transform(X, y)`` by one fitted
        for that.
    n_train_ : int
        Number of training rows, the columns of :meth:`transform`.
    row_hashes_ : ndarray of uint64, shape (n_train,), or None
        Fingerprints of the training rows in the order of ``fit``; None where rows of their kind have none.
    """

    has_unit = False
    fit_depends_on_measurement = False

    @abstractmethod
    def fit(self, X: Any, y: Any = None, *, net: Any = None, stage: Any = None) -> BaseAttribution:
        """Fit on training rows; see the method's own class.

        Parameters
        ----------
        X : array-like of shape (n_train, ...), dict of arrays or torch Dataset
            The training rows.
        y : array-like of shape (n_train,) or (n_train, n_outputs), optional
            Their targets.
        net : skorch.NeuralNet, optional
            The trained network. ``fit(net, X, y)`` is the same call.
        stage : array-like of int of shape (n_train,), optional
            For networks trained in several stages: the stage each row is credited in.

        Returns
        -------
        self : object
            The fitted estimator, with ``n_train_`` and ``row_hashes_``.
        """

    @abstractmethod
    def _query_batches(self, X: Any, y: Any) -> tuple[int, QueryBatches]:
        """Validate queries and part them by what fits in memory.

        Returns
        -------
        n_query : int
        batches : QueryBatches
            Of the rows of the result that a batch fills, and what :meth:`_score_batches` needs of its queries.
        """

    @abstractmethod
    def _score_batches(self, queries: Any, n_queries: int) -> Iterator[tuple[slice, Any]]:
        """Yield (slice of training rows, their scores for some queries: Tensor or ndarray (n_queries, rows))."""

    @abstractmethod
    def _self_batches(self) -> Iterator[tuple[slice, Any]]:
        """Yield (slice of training rows, each row's influence on itself: Tensor or ndarray (rows,))."""

    def _spread_batches(self, queries: Any, n_queries: int) -> Iterator[tuple[slice, Any]]:
        """:meth:`_score_batches`, by several workers where a method has them."""
        return self._score_batches(queries, n_queries)

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """A fitted estimator for as long as the context lasts; methods that threads cannot share add a lock."""
        check_is_fitted(self)
        yield

    def _fitted_parts(self) -> dict[str, Any]:
        """What the scores depend on, by name: values that a digest is made of. A file of scores is known by them."""
        settings = {name: _described(value) for name, value in _settings(self).items()}
        return {"method": type(self).__qualname__, **settings, "training rows": getattr(self, "row_hashes_", None)}

    def _first_scores(self, queries: Any) -> NDArray[np.float32]:
        """The first scores of one query, as :meth:`_score_batches` takes it, that are not 0: those of rows not trained
        on are, and tell nothing."""
        found, batches = np.zeros(0, dtype=np.float32), self._score_batches(queries, 1)
        for _, part in batches:
            scores = _numbers_of(part)[0]
            found = np.concatenate([found, scores[scores != 0]])[:N_FIRST]
            if len(found) == N_FIRST:
                break
        return found

    def transform(self, X: Any, y: Any = None, *, out: Any = None) -> NDArray[np.float32]:
        """Scores of every training row for every query.

        Parameters
        ----------
        X : array-like of shape (n_query, ...)
            The queries.
        y : array-like, optional
            Their targets, where the measurement needs them; classifiers default to the predicted class.
        out : path-like or array of shape (n_query, n_train), optional
            Where scores go that memory does not hold: the path of a ``.npy`` file, which is made, and which the same
            call goes on from after it was interrupted; or an array to be filled, of NumPy or whatever is assigned to by
            slices. See :ref:`out_of_core`.

        Returns
        -------
        scores : ndarray of shape (n_query, n_train), float32
            In the unit of the measurement for methods that have one; positive: having the row raised the query's
            measurement. Columns in the order of the rows given to ``fit``. Of a path a memmap, read-only; of an array
            that array.

        Raises
        ------
        ValueError
            If queries hold NaN, have another width than the training rows, or lack targets that the measurement needs;
            if ``out`` cannot hold the scores, or ``set_output`` asks for a data frame of them.
        FileExistsError
            If the file ``out`` holds anything but scores of this estimator for these queries.
        BlockingIOError
            If another process is writing the file ``out``.
        """
        if out is not None and output_container(self) != "default":
            raise ValueError(
                f"expected no out= where set_output asks for transform={output_container(self)!r}, which would copy "
                "all scores into memory: use set_output(transform='default')"
            )
        with self._exclusive():
            n_query, batches = self._query_batches(X, y)
            with score_output(out, (n_query, self.n_train_), lambda: self._identity(batches)) as output:
                for rows, queries in output.left(batches):
                    with output.block(rows) as write:
                        for columns, part in self._spread_batches(queries, rows.stop - rows.start):
                            write(columns, _numbers_of(part))
                return output.result()

    def _identity(self, batches):
        """What scores in a file are known by: this estimator as it was fitted, and the queries."""
        parts = {**self._fitted_parts(), "queries": batches.contents(), "sklearn-source": version("sklearn-source")}
        return identity_of(parts, self._first_scores(batches.make(slice(0, 1))))

    @net_first
    def fit_transform(self, X: Any, y: Any = None, *, net: Any = None, stage: Any = None) -> NDArray[np.float32]:
        """Fit, and score the training rows for each other.

        Parameters
        ----------
        X : array-like of shape (n_train, ...)
            The training rows; they are the queries too.
        y : array-like of shape (n_train,) or (n_train, n_outputs), optional
            Their targets.
        net : skorch.NeuralNet, optional
            The trained network, where the constructor has none.
        stage : array-like of int of shape (n_train,), optional
            For networks trained in several stages: the stage each row is credited in.

        Returns
        -------
        scores : ndarray of shape (n_train, n_train), float32
            ``fit(X, y).transform(X)``; with ``y`` where the measurement cannot do without.
        """
        self.fit(X, y, net=net, stage=stage)
        return self.transform(X, y if self._transform_needs_y() else None)

    def _transform_needs_y(self) -> bool:
        return False

    def top_influences(self, X: Any, y: Any = None, k: int = 10, *, order: str = "supporting") -> Bunch:
        """The strongest training rows of every query, without ever holding the whole matrix.

        Parameters
        ----------
        X : array-like of shape (n_query, ...)
            The queries.
        y : array-like, optional
            Their targets, where the measurement needs them.
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
        with self._exclusive():
            k, largest = check_k(k, self.n_train_), check_order(order)
            n_query, batches = self._query_batches(X, y)
            indices = np.zeros((n_query, k), dtype=np.int64)
            scores = np.zeros((n_query, k), dtype=np.float32)
            for rows, queries in batches:
                top = TopRows(k, largest=largest)
                for columns, part in self._spread_batches(queries, rows.stop - rows.start):
                    top.add(columns, torch.as_tensor(part))
                scores[rows], indices[rows] = _numbers_of(top.scores), _numbers_of(top.indices, np.int64)
        return Bunch(indices=indices, scores=scores)

    def self_influence(self) -> NDArray[np.float32]:
        """How much of its own fit each training row owes to its presence.

        Returns
        -------
        scores : ndarray of shape (n_train,), float32
            The score of every row for itself with the measurement ``"neg_loss"``. Large: memorised, often mislabelled.
        """
        with self._exclusive():
            scores = np.zeros(self.n_train_, dtype=np.float32)
            for columns, part in self._self_batches():
                scores[columns] = _numbers_of(part)
        return scores

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Names of the columns of :meth:`transform`: ``row0``, ``row1``, ...

        Parameters
        ----------
        input_features : ignored
            Present for the convention.

        Returns
        -------
        names : ndarray of str objects, shape (n_train,)
            One per training row, in the order of ``fit``.
        """
        check_is_fitted(self)
        return np.asarray([f"row{i}" for i in range(self.n_train_)], dtype=object)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # always float32
        return tags


def _settings(estimator: Any) -> dict[str, Any]:
    """The parameters that decide scores."""
    known = estimator.get_params(deep=False)
    return {name: value for name, value in known.items() if name not in _NOT_IN_A_FILE}


def _described(value: Any) -> Any:
    """A parameter; of one that has parameters, its class by name, and these."""
    if isinstance(value, type) or not hasattr(value, "get_params"):
        return value
    return [type(value).__qualname__, {name: _described(part) for name, part in _settings(value).items()}]


def _numbers_of(part: Any, dtype: type = np.float32) -> NDArray:
    """A tensor of any device, or an array, as an ndarray of ``dtype``."""
    if isinstance(part, torch.Tensor):
        # Rounded on its device: half the bytes to bring over.
        part = (part.to(torch.float32) if dtype is np.float32 else part).cpu().numpy()
    return np.asarray(part, dtype=dtype)
