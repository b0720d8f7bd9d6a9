"""Ground truth made up so that everything about it is known."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata
from sklearn.utils import Bunch


def additive_world(seed, n_subsets, n_query, n_train=40, n_repeats=3, reliability=0.8, quality=1.0, shared=0.5):
    """Rows with additive effects, seen through noise; scores that are the effects and an error.

    `reliability` is that of the mean over repeats. A share of the noise is common to the queries of a network.
    """
    rng = np.random.default_rng(seed)
    effects = rng.normal(size=(n_query, n_train))
    masks = np.argsort(rng.random((n_subsets, n_train)), axis=1) < n_train // 2
    size = np.sqrt(n_train / 4 * (1 / reliability - 1) * n_repeats)
    noise = np.sqrt(1 - shared) * rng.normal(size=(n_subsets, n_repeats, n_query))
    noise = size * (noise + np.sqrt(shared) * rng.normal(size=(n_subsets, n_repeats, 1)))
    scores = effects + rng.uniform(0.3, 1.5, size=(n_query, 1)) * quality * rng.normal(size=effects.shape)
    truth = Bunch(masks=masks, outputs=(masks @ effects.T)[:, None] + noise)
    return scores, truth, effects


def spearman(a, b):
    """Spearman correlation of every column of one table with the same column of another."""
    a, b = (rankdata(values, axis=0) for values in (a, b))
    a, b = a - a.mean(0), b - b.mean(0)
    return (a * b).sum(0) / np.sqrt((a * a).sum(0) * (b * b).sum(0))


class RidgeWorld:
    """Actual retraining in closed form: a ridge regression that starts at random weights, on subsets of fixed rows.

    What repeats differ in is common to all queries, and larger where a query or a subset leaves more to the start.
    Scores are influence functions with an error of their own for every row, the same for all queries. Queries have
    heavy tails, or come from a few clusters and then hardly differ.
    """

    def __init__(self, seed, n_train=60, n_features=6, penalty=8.0, start=1.0, n_clusters=0):
        rng = np.random.default_rng([seed, 1])
        self.penalty, self.start = penalty, start
        self.X = rng.standard_t(4, size=(n_train, n_features))
        self.y = 2 * np.tanh(self.X @ rng.normal(size=n_features)) + rng.standard_t(3, size=n_train)
        self.centers = 1.5 * rng.normal(size=(n_clusters, n_features))
        whole = self.X.T @ self.X + penalty * np.eye(n_features)
        residuals = self.y - self.X @ np.linalg.solve(whole, self.X.T @ self.y)
        self.moves = np.linalg.solve(whole, self.X.T) * residuals
        self.moves += np.abs(self.moves).mean() * rng.normal(size=self.moves.shape)

    def draw(self, rng, n_subsets, n_query, n_repeats):
        """Scores, truth, and what the outputs are without noise: (n_subsets, n_query)."""
        n_train, n_features = self.X.shape
        if len(self.centers):
            queries = self.centers[rng.integers(len(self.centers), size=n_query)]
            queries = queries + 0.3 * rng.normal(size=queries.shape)
        else:
            queries = rng.standard_t(4, size=(n_query, n_features))
        masks = np.argsort(rng.random((n_subsets, n_train)), axis=1) < n_train // 2
        whole = np.einsum("jn,na,nb->jab", masks.astype(float), self.X, self.X) + self.penalty * np.eye(n_features)
        start = self.start * rng.normal(size=(n_subsets, n_repeats, n_features))
        expected = np.linalg.solve(whole, ((masks * self.y) @ self.X)[:, :, None])[:, :, 0]
        moved = np.linalg.solve(whole, self.penalty * start.transpose(0, 2, 1)).transpose(0, 2, 1)
        outputs = (expected[:, None] + moved) @ queries.T
        return queries @ self.moves, Bunch(masks=masks, outputs=outputs), expected @ queries.T


class SkewedWorld:
    """Multiplicative effects, noise of a size of its own for every query and every subset, and hopeless queries."""

    def __init__(self, seed, n_train=40, hopeless=0.5, noise=0.5, rounded=False):
        self.common = np.random.default_rng([seed, 2]).normal(size=(3, n_train))
        self.hopeless, self.noise, self.rounded = hopeless, noise, rounded

    def draw(self, rng, n_subsets, n_query, n_repeats):
        """As in :class:`RidgeWorld`."""
        n_train = self.common.shape[1]
        effects = rng.normal(size=(n_query, 3)) @ self.common / 3 + 0.3 * rng.standard_t(5, size=(n_query, n_train))
        masks = rng.random((n_subsets, n_train)) < 0.5
        expected = np.sinh(masks @ effects.T / 2 - effects.sum(1) / 4)
        size = np.exp(0.7 * rng.normal(size=n_query)) * np.exp(0.5 * rng.normal(size=(n_subsets, 1, 1)))
        outputs = expected[:, None] + self.noise * size * rng.standard_t(4, size=(n_subsets, n_repeats, n_query))
        scores = effects + 0.4 * rng.normal(size=effects.shape)
        scores[rng.random(n_query) < self.hopeless] = rng.normal(size=n_train)
        return scores, Bunch(masks=masks, outputs=np.round(outputs) if self.rounded else outputs), expected
