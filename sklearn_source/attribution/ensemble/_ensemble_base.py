"""What ensembles share: the mean over members, streamed, and how sure the members are of it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.utils import Bunch
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from ...base import BaseAttribution, NetworkAttribution, QueryBatches, net_first, open_pipeline, require_trained, unwrap
from ...gradients.algebra import even_chunks
from ...network import PortableNet, train_clone
from ...rows import count_rows, take_rows
from ...utils._argument_checks import check_confidence, check_path
from ...utils._compat import fit_context
from ...utils._config import bytes_for
from ...utils._random import draw_seed
from .._influence import InfluenceFunctions
from ._judged_by import judge_by
from ._stored_members import StoresMembersGradients


def _members_predict(ensemble):
    """Whether the method of the members predicts other weights of the rows."""
    members = getattr(ensemble, "members_", None) or [ensemble._prototype()]
    return hasattr(members[0], "predict_reweighting")


class BaseEnsemble(StoresMembersGradients, BaseAttribution):
    """Base of the ensembles: the mean of the scores of members, each fitted on a network of its own.

    A subclass gives :meth:`_fit_members`, and has the parameters ``estimator``, ``random_state`` and ``verbose``.
    """

    _parameter_constraints: dict[str, Any] = {
        "estimator": [None, BaseAttribution],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    @abstractmethod
    def _fit_members(self, X, y, net, as_is, stage):
        """Fitted members, and the net whose predicted classes all are asked about."""

    def _trained(self, X, y, net, as_is, recorder=None):
        """A net that is trained, by ``fit`` where it is bare, and the rows as it was trained on them."""
        net, frozen = unwrap(net)
        if as_is or frozen:
            require_trained(net)
            return net, X, y
        recorder = recorder or self._recorder()
        return train_clone(net, X, y, seed=draw_seed(self.random_state), recorder=recorder)

    def _recorder(self):
        """What the method wants to watch a training; None where it wants nothing."""
        prototype = self._prototype()
        return prototype._recorder() if hasattr(prototype, "_recorder") else None

    @property
    def has_unit(self) -> bool:  # type: ignore[override]
        """Whether scores carry the unit of the measurement: as those of the members do."""
        return bool(getattr(self._prototype(), "has_unit", False))

    def _prototype(self):
        return InfluenceFunctions() if self.estimator is None else self.estimator

    @net_first
    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None, *, net: Any = None, stage: Any = None) -> BaseEnsemble:
        """Make the members, and fit the method on each.

        Parameters
        ----------
        X : array-like of shape (n_train, ...), dict of arrays or torch Dataset
            The rows given to ``net.fit``.
        y : array-like of shape (n_train,) or (n_train, n_outputs), optional
            Their targets.
        net : skorch.NeuralNet or Pipeline, optional
            The trained network, used as it is and never modified. ``fit(net, X, y)`` is the same call. Without it that
            of ``estimator`` is used: frozen as it is, bare by training clones. The fitted steps of a pipeline that ends
            in a network are those of all members: :ref:`pipelines`.
        stage : array-like of int of shape (n_train,), optional
            As the method takes it.

        Returns
        -------
        self : object
            The fitted ensemble.

        Raises
        ------
        ValueError
            If members cannot be made of this network, or the method cannot serve one; the message says what to do.
        TypeError
            If networks are to be trained on a stream.
        """
        if getattr(self, "cache", None) is not None:
            check_path("cache", self.cache)
        given = getattr(self._prototype(), "net", None) if net is None else net
        steps, given = open_pipeline(given, net is not None)
        members, asked = self._fit_members(steps.transform(X), y, given, net is not None, stage)
        for member in members if steps else []:
            if not isinstance(member, NetworkAttribution):
                raise TypeError(
                    f"expected a method that looks into a network, which a pipeline's steps can stand in front of, got "
                    f"{type(member).__name__}: give the net itself, and rows as it reads them"
                )
            member._stand_behind(steps, X)
        judge_by(members, asked)
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)
            if hasattr(members[0], name):
                setattr(self, name, getattr(members[0], name))
        self.members_, self.net_ = members, asked
        self.n_train_ = members[0].n_train_
        self.row_hashes_ = getattr(members[0], "row_hashes_", None)
        return self

    def score_error(self, X: Any, y: Any = None) -> NDArray[np.float32]:
        """Standard errors of the scores of :meth:`transform`, from how much the members differ.

        Parameters
        ----------
        X : array-like of shape (n_query, ...)
            The queries.
        y : array-like, optional
            Their targets, where the measurement needs them.

        Returns
        -------
        errors : ndarray of shape (n_query, n_train), float32
            In the unit of the scores. Of the members' mean: what all members have wrong alike is no part of it.

        Raises
        ------
        ValueError
            If there is a single member.
        """
        n_query, chunks = self._means_and_errors(X, y)
        errors = np.empty((n_query, self.n_train_), dtype=np.float32)
        for rows, _, error in chunks:
            errors[rows] = error
        return errors

    def stable_influences(self, X: Any, y: Any = None, *, alpha: float = 0.05) -> Bunch:
        """Which influences have a sign that is more than the chance of single trainings.

        A two-sided t-test over the members for every pair, with the false discovery rate of each query's rows held
        below ``alpha`` by the procedure of Benjamini and Hochberg [1]_.

        Parameters
        ----------
        X : array-like of shape (n_query, ...)
            The queries.
        y : array-like, optional
            Their targets, where the measurement needs them.
        alpha : float, default=0.05
            Share of those called stable, at most, whose sign is chance.

        Returns
        -------
        found : Bunch
            ``stable`` (n_query, n_train) of bool, ``p_values``, ``scores`` and ``errors`` (n_query, n_train).

        Raises
        ------
        ValueError
            If there is a single member, or alpha is not between 0 and 1.

        References
        ----------
        .. [1] Benjamini, Hochberg (1995), "Controlling the False Discovery Rate", JRSS B 57.
        """
        check_confidence(alpha, "alpha")
        n_query, chunks = self._means_and_errors(X, y)
        shape = n_query, self.n_train_
        found = Bunch(stable=np.empty(shape, dtype=bool), p_values=np.empty(shape))
        found.scores, found.errors = np.empty(shape), np.empty(shape)
        for rows, mean, error in chunks:
            with np.errstate(divide="ignore", invalid="ignore"):
                t = np.where(mean == 0, 0.0, np.abs(mean) / error)
            found.scores[rows], found.errors[rows] = mean, error
            found.p_values[rows] = 2.0 * stats.t.sf(t, self._n_opinions - 1)
            found.stable[rows] = _discoveries(found.p_values[rows], alpha)
        return found

    @available_if(_members_predict)
    def predict_reweighting(self, X: Any, y: Any = None, **options: Any) -> NDArray[np.float64]:
        """How far measurements go where rows are removed or weigh otherwise: the mean of the members' predictions.

        Parameters
        ----------
        X : array-like of shape (n_query, ...)
            The queries.
        y : array-like, optional
            Their targets, where the measurement needs them.
        **options : dict
            ``groups``, ``weights`` and ``renormalize``, as the method of the members takes them.

        Returns
        -------
        change : ndarray of shape (n_query, n_groups), float64
            In the unit of the measurement.
        """
        check_is_fitted(self)
        return np.mean([member.predict_reweighting(X, y, **options) for member in self.members_], axis=0)

    @available_if(_members_predict)
    def predict_relabeling(self, X: Any, y: Any = None, **options: Any) -> NDArray[np.float64]:
        """How far measurements go where training rows get other targets: the mean of the members' predictions.

        Parameters
        ----------
        X : array-like of shape (n_query, ...)
            The queries.
        y : array-like, optional
            Their targets, where the measurement needs them.
        **options : dict
            ``y_train`` and ``groups``, as the method of the members takes them.

        Returns
        -------
        change : ndarray of shape (n_query, n_groups), float64
            In the unit of the measurement.
        """
        check_is_fitted(self)
        return np.mean([member.predict_relabeling(X, y, **options) for member in self.members_], axis=0)

    @property
    def _n_opinions(self):
        """How many networks are averaged over."""
        return len(self.members_)

    def _means_and_errors(self, X, y):
        """Number of queries, and (slice of queries, mean over members, its standard error) of one chunk after another.

        Of a chunk, one member's scores and the running sums are in memory.
        """
        check_is_fitted(self)
        if self._n_opinions < 2:
            raise ValueError("expected two members or more to tell how much they differ, got one: raise n_members")
        n_query, chunks = self._query_batches(X, y)
        return n_query, ((rows, *self._moments(queries, rows.stop - rows.start)) for rows, queries in chunks)

    def _moments(self, queries, n_queries):
        n = len(self.members_)
        # Welford's: differences of large sums would lose the small.
        mean, total = np.zeros((n_queries, self.n_train_)), np.zeros((n_queries, self.n_train_))
        for k, member in enumerate(self.members_, start=1):
            scores = np.asarray(member.transform(*queries), dtype=np.float64)
            step = scores - mean
            mean += step / k
            total += step * (scores - mean)
        return mean, np.sqrt(total / (n - 1) / n)

    def _query_batches(self, X, y):
        n_query = count_rows(X)
        if n_query is None:
            raise ValueError("expected queries that can be counted, got a stream of rows: pass them as an array")
        if not n_query:
            raise ValueError("expected at least one query, got X with 0 rows")
        chunks = even_chunks(n_query, bytes_for("scores") // (8 * self.n_train_))

        def make(rows):
            if rows == slice(0, n_query):
                return X, y
            index = np.arange(rows.start, rows.stop)
            return take_rows(X, index), None if y is None else take_rows(y, index)

        def contents():
            return self.members_[0]._query_batches(X, y)[1].contents()

        return n_query, QueryBatches(chunks, make, contents)

    def _fitted_parts(self):
        return {**super()._fitted_parts(), "members": [member._fitted_parts() for member in self.members_]}

    def _first_scores(self, queries):
        def of(member):
            with member._exclusive():
                return member._first_scores(member._query_batches(*queries)[1].make(slice(0, 1)))

        return np.concatenate([of(member) for member in self.members_])

    def _score_batches(self, queries, n_queries):
        total = np.zeros((n_queries, self.n_train_))
        for member in self.members_:
            total += member.transform(*queries)
        yield slice(0, self.n_train_), total / len(self.members_)

    def _self_batches(self):
        yield slice(0, self.n_train_), np.mean([member.self_influence() for member in self.members_], axis=0)

    def _transform_needs_y(self):
        needs = getattr(self.members_[0], "_transform_needs_y", None)
        return bool(needs and needs())

    @property
    def _measure(self):
        """What is measured, for displays."""
        return self.members_[0]._measure

    def __getstate__(self):
        state = dict(super().__getstate__())
        return {name: PortableNet(value) if name == "net_" else value for name, value in state.items()}


def _discoveries(p_values, alpha):
    """Per line, those that Benjamini and Hochberg's procedure keeps."""
    n = p_values.shape[1]
    order = np.sort(p_values, axis=1)
    below = order <= alpha * np.arange(1, n + 1) / n
    last = np.where(below.any(axis=1), n - 1 - below[:, ::-1].argmax(axis=1), -1)
    bound = np.where(last >= 0, order[np.arange(len(order)), last], -1.0)
    return p_values <= bound[:, None]
