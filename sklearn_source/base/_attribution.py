"""The contract of every attribution method."""

from __future__ import annotations

from abc import abstractmethod
from numbers import Integral

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Bunch, check_random_state
from sklearn.utils.validation import check_is_fitted

from ..network import Network, resolve_measurement
from ..trajectory import Trajectory, row_hashes
from ..utils._compat import FrozenEstimator, HasMethods, Interval, StrOptions, fit_context, validate_data
from ..utils._progress import progress
from ._doors import PortableNet, match_target, net_first, require_trained, train_clone, unwrap
from ._rowstages import credited_rows
from ._terms import merge_top

_ORDERS = ("supporting", "opposing")


class BaseAttribution(TransformerMixin, BaseEstimator):
    """Scores of training rows for queries: the base class of all methods.

    A method gives :meth:`_fit_method`, :meth:`_prepare_queries` and :meth:`_score_batches`; validation, the ways in,
    output and streaming are here.
    """

    _parameter_constraints = {
        "net": [None, FrozenEstimator, HasMethods(["fit", "get_params"])],
        "measurement": [StrOptions({"auto", "log_odds", "prediction", "neg_loss"}), callable],
        "output": [None, Interval(Integral, 0, None, closed="left")],
        "batch_size": [None, Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }
    _needs_trajectory = False
    # Rows of the widest matrix handed out at a time when nothing larger is at stake.
    _query_chunk = 4096

    @net_first
    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, *, net=None, stage=None):
        """Fit on the training rows of a network.

        Parameters
        ----------
        X : array-like of shape (n_train, ...), dict of arrays or torch Dataset
            The rows given to ``net.fit``; any order, none missing.
        y : array-like of shape (n_train,) or (n_train, n_outputs)
            Their targets.
        net : skorch.NeuralNet, optional
            The trained network, used as it is and never modified. ``fit(net, X, y)`` is the same call. Without it the
            constructor's ``net`` is used: frozen as it is, bare by training a clone.
        stage : array-like of int of shape (n_train,), optional
            For networks trained in several stages: the stage each row is credited in.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If the rows are not those trained on, hold NaN, or the method cannot serve this network; the message says
            what to do.
        sklearn.exceptions.NotFittedError
            If the network is not trained.
        """
        given = net if net is not None else self.net
        source, frozen = unwrap(given)
        as_is = frozen or net is not None
        if as_is:
            require_trained(source)
        X, y = self._validated(X, y, reset=True)
        if y is not None:
            y = match_target(source, y)
        seed = self._draw_seed()
        if not as_is:
            source, X, y = train_clone(
                source, X, y, random_state=seed, needs_trajectory=self._needs_trajectory,
                n_checkpoints=getattr(self, "n_segments", 0) + 1 if getattr(self, "n_segments", 0) > 6 else None,
            )  # fmt: skip
        self.net_ = source
        self._seed = seed
        self._network = Network.from_net(source)
        self._rows = self._network.prepare(X, y)
        self.n_train_ = len(self._rows)
        trajectory = self._find_trajectory(source)
        if trajectory is not None:
            self.trajectory_ = trajectory
        hashes = row_hashes(X, y)
        self._credited = credited_rows(trajectory, hashes, self.n_train_, stage)
        self._identified = hashes is not None
        self._keys = np.arange(self.n_train_, dtype=np.uint64) if hashes is None else hashes
        self._network.calibrate(self._rows, np.unique(np.concatenate(self._credited)))
        self._measure = resolve_measurement(
            getattr(self, "measurement", "auto"), self._network, output=getattr(self, "output", None)
        )
        self._fit_method()
        return self

    @abstractmethod
    def _fit_method(self):
        """Learn what the method needs from ``_network``, ``_rows``, ``_credited`` and ``trajectory_``."""

    @abstractmethod
    def _prepare_queries(self, rows, index, measure):
        """What :meth:`_score_batches` needs of some query rows."""

    @abstractmethod
    def _score_batches(self, queries, n_queries):
        """Yield (slice of training rows, scores tensor (n_queries, rows))."""

    @abstractmethod
    def _self_batches(self):
        """Yield (slice of training rows, tensor of each row's influence on itself)."""

    def _find_trajectory(self, net):
        given = getattr(self, "trajectory", None)
        if given is not None:
            trajectory = given if isinstance(given, Trajectory) else Trajectory.load(given)
            trajectory.require_end_at(net)
            return trajectory
        return Trajectory.from_net(net) if self._needs_trajectory else None

    def _draw_seed(self):
        """One seed per fit. None draws fresh entropy, so that numpy's global state is left alone."""
        if self.random_state is None:
            return int(np.random.default_rng().integers(2**31 - 1))
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _validated(self, X, y, reset):
        if not isinstance(X, (np.ndarray, list)) and not hasattr(X, "iloc"):
            if reset and torch.is_tensor(X) and X.ndim == 2:
                self.n_features_in_ = X.shape[1]
            return X, y  # tensors, dicts, tuples and Datasets go through the network's own checks
        options = {"allow_nd": True, "dtype": "numeric", "reset": reset, "ensure_min_samples": 1}
        if y is None and not (reset and self.__sklearn_tags__().target_tags.required):
            return validate_data(self, X, skip_check_array=False, **options), None
        if torch.is_tensor(y):
            y = y.numpy(force=True)
        return validate_data(self, X, y, multi_output=True, **options)

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
        """
        rows, chunks = self._query_chunks(X, y)
        scores = np.zeros((len(rows), self.n_train_), dtype=np.float32)
        for index in chunks:
            queries = self._prepare_queries(rows, index, self._measure)
            for columns, part in self._score_batches(queries, len(index)):
                scores[index[0] : index[-1] + 1, columns] = part.to(torch.float32).cpu().numpy()
        return scores

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
        """
        rows, chunks = self._query_chunks(X, y)
        if not isinstance(k, (int, np.integer)) or not 1 <= k <= self.n_train_:
            raise ValueError(f"k must be an integer from 1 to the number of training rows, {self.n_train_}; got {k!r}")
        if order not in _ORDERS:
            raise ValueError(f"order must be one of {_ORDERS}, got {order!r}")
        indices = np.zeros((len(rows), k), dtype=np.int64)
        scores = np.zeros((len(rows), k), dtype=np.float32)
        for index in chunks:
            queries = self._prepare_queries(rows, index, self._measure)
            best = at = None
            for columns, part in self._score_batches(queries, len(index)):
                here = torch.arange(columns.start, columns.stop, device=part.device)[None]
                if best is None:
                    best, at = part[:, :0], here[:, :0].expand(len(index), 0)
                best, at = merge_top(best, at, part, here, k, largest=order == "supporting")
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
        check_is_fitted(self)
        scores = np.zeros(self.n_train_, dtype=np.float32)
        for columns, part in self._self_batches():
            scores[columns] = part.to(torch.float32).cpu().numpy()
        return scores

    def _query_chunks(self, X, y):
        check_is_fitted(self)
        X, y = self._validated(X, y, reset=False)
        if y is not None:
            y = match_target(self.net_, y)
        rows = self._network.prepare(X, y)
        if self._measure.needs_y and y is None and not _has_targets(rows):
            raise ValueError(
                f"measurement={self._measure.name!r} compares the prediction with a target: pass y of the queries, "
                "transform(X, y)"
            )
        size = max(1, min(self._query_chunk, self._queries_at_once()))
        chunks = [np.arange(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]
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

    def __sklearn_is_fitted__(self):
        return hasattr(self, "_measure")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        tags.transformer_tags.preserves_dtype = []
        tags.non_deterministic = False
        return tags

    def __getstate__(self):
        state = dict(super().__getstate__())
        for name in ("net", "net_"):
            if state.get(name) is not None:
                state[name] = PortableNet(state[name])
        return state


def _has_targets(rows):
    return rows.batch(slice(0, 1))[1] is not None
