"""Ensembles: the mean of the scores of members, each a fitted method of its own."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from ...base import BaseAttribution, net_first, require_trained, unwrap
from ...network import PortableNet, train_clone
from ...rows import count_rows, take_rows
from ...utils._compat import fit_context
from .._influence import InfluenceFunctions


class BaseEnsemble(BaseAttribution):
    """Mean of the scores of members."""

    _query_chunk = 256
    _parameter_constraints: dict[str, Any] = {
        "estimator": "no_validation",
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    @property
    def has_unit(self):
        return self._prototype().has_unit

    def _prototype(self):
        return InfluenceFunctions() if self.estimator is None else clone(self.estimator)

    @abstractmethod
    def _fit_members(self, X, y, net, stage):
        """The fitted members."""

    @net_first
    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None, *, net: Any = None, stage: Any = None) -> BaseEnsemble:
        """Fit the members."""
        prototype = self._prototype()
        given, frozen = unwrap(getattr(prototype, "net", None) if net is None else net)
        if net is None and not frozen:
            seed = int(np.random.default_rng(self.random_state).integers(2**31 - 1))
            given, X, y = train_clone(given, np.asarray(X), y, seed=seed, recorder=prototype._recorder())
        require_trained(given)
        members = self._fit_members(X, y, given, stage)
        self.members_, self.n_train_ = members, members[0].n_train_
        self.row_hashes_ = members[0].row_hashes_
        return self

    @property
    def n_features_in_(self):
        return self.members_[0].n_features_in_

    def _query_batches(self, X, y):
        n = count_rows(X)
        chunks = [slice(i, min(i + self._query_chunk, n)) for i in range(0, n, self._query_chunk)]

        def part(chunk):
            index = np.arange(chunk.start, chunk.stop)
            return take_rows(X, index), None if y is None else take_rows(y, index)

        return n, ((chunk, part(chunk)) for chunk in chunks)

    def _score_batches(self, queries, n_queries):
        total, _ = self._sums(*queries)
        yield slice(0, self.n_train_), total / len(self.members_)

    def _sums(self, X, y):
        total = squares = 0.0
        for member in self.members_:
            scores = member.transform(X, y).astype(np.float64)
            total, squares = total + scores, squares + scores**2
        return total, squares

    def _self_batches(self):
        yield slice(0, self.n_train_), np.mean([member.self_influence() for member in self.members_], axis=0)

    def score_error(self, X: Any, y: Any = None) -> NDArray[np.float32]:
        """Standard error of the mean over members."""
        check_is_fitted(self)
        n = len(self.members_)
        n_query, batches = self._query_batches(X, y)
        errors = np.zeros((n_query, self.n_train_), dtype=np.float32)
        for rows, queries in batches:
            total, squares = self._sums(*queries)
            errors[rows] = np.sqrt(np.maximum(squares - total**2 / n, 0.0) / (n - 1) / n)
        return errors

    def __sklearn_is_fitted__(self):
        return hasattr(self, "members_")

    def __sklearn_tags__(self):
        return get_tags(self._prototype())

    def __getstate__(self):
        state = dict(super().__getstate__())
        return {name: PortableNet(value) if name == "net_" else value for name, value in state.items()}
