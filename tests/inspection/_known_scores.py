"""An attribution method whose scores are known."""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin


class Known(TransformerMixin, BaseEstimator):
    """Scores are rows of a table; a query is the index of its row."""

    def __init__(self, table=None):
        self.table = table

    def fit(self, X=None, y=None):
        self.n_train_ = np.shape(self.table)[1]
        return self

    def transform(self, X, y=None):
        rows = np.asarray(X)[:, 0].astype(int)
        scores = np.asarray(self.table)[rows]
        return scores if y is None else scores * np.asarray(y)[:, None]


def known(table):
    """The fitted method, and all its queries."""
    return Known(table).fit(), np.arange(len(table))[:, None]
